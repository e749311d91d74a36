// Module wireguard-tailscale pins Tailscale's fork of wireguard-go, which the interop tests
// let loden's engine talk to.
module github.com/loden-net/loden/test/tools/wireguard-tailscale

go 1.26.0

tool github.com/tailscale/wireguard-go

require (
	github.com/tailscale/wireguard-go v0.0.0-20260821191448-23d18d66172c // indirect
	golang.org/x/crypto v0.50.0 // indirect
	golang.org/x/net v0.53.0 // indirect
	golang.org/x/sys v0.43.0 // indirect
	golang.zx2c4.com/wintun v0.0.0-20230126152724-0fa3db229ce2 // indirect
)
