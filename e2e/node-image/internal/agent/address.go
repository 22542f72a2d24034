package agent

import (
	"fmt"
	"net"
)

// NodeIP is the first --node-ip, or the address by which this node speaks to
// the outside. Nothing is sent: connecting a UDP socket only asks the routes.
func NodeIP(given []string) (string, error) {
	if len(given) > 0 {
		if net.ParseIP(given[0]) == nil {
			return "", fmt.Errorf("--node-ip %q is not an address", given[0])
		}
		return given[0], nil
	}
	if socket, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer socket.Close()
		return socket.LocalAddr().(*net.UDPAddr).IP.String(), nil
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list the addresses of this node: %w; give --node-ip", err)
	}
	for _, address := range addresses {
		network, isNetwork := address.(*net.IPNet)
		if isNetwork && network.IP.To4() != nil && network.IP.IsGlobalUnicast() {
			return network.IP.String(), nil
		}
	}
	return "", fmt.Errorf("this node has no IPv4 address but loopback: attach it to a network, or give --node-ip")
}
