// virtio-vhost-user: a back-end inside another virtual machine. To come: see docs/ARCHITECTURE.md.
