package kindnet

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Marks the routes that are ours to remove; any number that the kernel's own
// list of routing protocols doesn't hold.
const routeProtocol = 176

// syncRoutes makes the kernel's routes of ours those to the nodes' pods.
func syncRoutes(nodes []node) error {
	wanted := make(map[string]bool, len(nodes))
	for _, each := range nodes {
		wanted[each.pods.String()] = true
		route := netlink.Route{Dst: each.pods, Gw: each.address, Protocol: routeProtocol}
		if err := netlink.RouteReplace(&route); err != nil {
			return fmt.Errorf("%s via %s: %w", each.pods, each.address, err)
		}
	}
	existing, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, route := range existing {
		if route.Dst == nil || wanted[route.Dst.String()] {
			continue
		}
		if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("removing %s: %w", route.Dst, err)
		}
	}
	return nil
}

// linkMTU is that of the interface towards the other nodes: pods must not send
// more than fits through it.
func linkMTU() (int, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_DST)
	if err != nil {
		return 0, err
	}
	for _, route := range routes {
		link, err := netlink.LinkByIndex(route.LinkIndex)
		if err != nil {
			return 0, err
		}
		return link.Attrs().MTU, nil
	}
	return 1500, nil // No default route: a cluster without a way out.
}
