// PCI functions as data: config space, BARs, capabilities, interrupts. To come: see docs/ARCHITECTURE.md.
