package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
)

// routeProtocol marks the routes that are ours to take away; `ip route` shows it.
const routeProtocol = 107

// wantedRoutes are the ranges of the other nodes' Pods, each by its node's address.
func wantedRoutes(nodes []*corev1.Node, self string) map[netip.Prefix]netip.Addr {
	wanted := map[netip.Prefix]netip.Addr{}
	for _, node := range nodes {
		if node.Name == self {
			continue
		}
		pods, err := netip.ParsePrefix(node.Spec.PodCIDR)
		if err != nil {
			continue // it has no range yet
		}
		address, err := netip.ParseAddr(cluster.InternalIP(node))
		if err != nil || address.Is4() != pods.Addr().Is4() {
			continue
		}
		wanted[pods.Masked()] = address
	}
	return wanted
}

// syncRoutes adds what is missing and takes away what is left over.
func syncRoutes(wanted map[netip.Prefix]netip.Addr) error {
	present, err := netlink.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: routeProtocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list the routes to other nodes: %w", err)
	}
	var problems []error
	there := map[netip.Prefix]bool{}
	for _, route := range present {
		pods, by := prefixOf(route), addressOf(route)
		if wanted[pods] == by && by.IsValid() {
			there[pods] = true
			continue
		}
		if _, replaced := wanted[pods]; replaced {
			continue
		}
		if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			problems = append(problems, fmt.Errorf("remove the route to %s: %w", pods, err))
		}
	}
	for pods, by := range wanted {
		if there[pods] {
			continue
		}
		route := &netlink.Route{Dst: netlinkNet(pods), Gw: by.AsSlice(), Protocol: routeProtocol}
		if err := netlink.RouteReplace(route); err != nil {
			problems = append(problems, fmt.Errorf("add the route to %s by %s: %w", pods, by, err))
		}
	}
	return errors.Join(problems...)
}

func prefixOf(route netlink.Route) netip.Prefix {
	if route.Dst == nil {
		return netip.Prefix{}
	}
	address, _ := netip.AddrFromSlice(route.Dst.IP)
	bits, _ := route.Dst.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits)
}

func addressOf(route netlink.Route) netip.Addr {
	address, _ := netip.AddrFromSlice(route.Gw)
	return address.Unmap()
}

func netlinkNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
