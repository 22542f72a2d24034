package options

import (
	"fmt"
	"net/netip"
	"slices"
)

// checkNetwork fills the cluster's address ranges with k3s's defaults
// (docs.k3s.io/cli/server, "Networking") and refuses what cannot work.
func (o *Options) checkNetwork() error {
	if len(o.ClusterCIDR) == 0 {
		o.ClusterCIDR = []string{"10.42.0.0/16"}
	}
	if len(o.ServiceCIDR) == 0 {
		o.ServiceCIDR = []string{"10.43.0.0/16"}
	}
	if len(o.ClusterCIDR) > 1 || len(o.ServiceCIDR) > 1 {
		return fmt.Errorf("two address families (%v, %v) are not built in the offline node image: give one IPv4 range each",
			o.ClusterCIDR, o.ServiceCIDR)
	}
	if _, err := netip.ParsePrefix(o.ClusterCIDR[0]); err != nil {
		return fmt.Errorf("--cluster-cidr %q: %w", o.ClusterCIDR[0], err)
	}
	services, err := netip.ParsePrefix(o.ServiceCIDR[0])
	if err != nil {
		return fmt.Errorf("--service-cidr %q: %w", o.ServiceCIDR[0], err)
	}
	if len(o.ClusterDNS) == 0 {
		o.ClusterDNS = []string{nth(services, 10).String()}
	}
	if dns, err := netip.ParseAddr(o.ClusterDNS[0]); err != nil || !services.Contains(dns) {
		return fmt.Errorf("--cluster-dns %q must be an address inside --service-cidr %s", o.ClusterDNS[0], services)
	}
	known := []string{"none", "vxlan", "host-gw", "wireguard-native"}
	if !slices.Contains(known, o.FlannelBackend) {
		return fmt.Errorf("--flannel-backend %q is not one of %v", o.FlannelBackend, known)
	}
	return nil
}

// FirstServiceIP is the address of the Service `kubernetes`.
func (o *Options) FirstServiceIP() string {
	return nth(netip.MustParsePrefix(o.ServiceCIDR[0]), 1).String()
}

func nth(prefix netip.Prefix, n int) netip.Addr {
	address := prefix.Masked().Addr()
	for range n {
		address = address.Next()
	}
	return address
}
