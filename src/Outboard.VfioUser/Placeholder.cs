// The vfio-user protocol, server and client. To come: see docs/ARCHITECTURE.md.
