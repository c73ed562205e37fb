"""Parts of emulators: networks, flows, ridge and growth maps, and how their gradients are computed."""
