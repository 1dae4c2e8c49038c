package kindnet

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
)

const chain = "KINDNET-MASQ"

// syncMasquerade lets what pods send out of the cluster leave with the node's
// address; within the cluster, pods and nodes see each other's own.
func syncMasquerade(own *net.IPNet, podSubnets []string, nodes []node) error {
	// A chain that is declared is emptied first, in the same transaction.
	var rules strings.Builder
	fmt.Fprintf(&rules, "*nat\n:%s - [0:0]\n", chain)
	for _, subnet := range podSubnets {
		if ip, _, err := net.ParseCIDR(subnet); err == nil && ip.To4() != nil {
			fmt.Fprintf(&rules, "-A %s -d %s -j RETURN\n", chain, subnet)
		}
	}
	for _, each := range nodes {
		fmt.Fprintf(&rules, "-A %s -d %s/32 -j RETURN\n", chain, each.address)
	}
	fmt.Fprintf(&rules, "-A %s -j MASQUERADE\nCOMMIT\n", chain)
	if err := iptables(rules.String(), "iptables-restore", "-w", "--noflush"); err != nil {
		return err
	}
	jump := []string{"POSTROUTING", "-s", own.String(), "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", chain}
	if iptables("", "iptables", append([]string{"-w", "-t", "nat", "-C"}, jump...)...) == nil {
		return nil
	}
	return iptables("", "iptables", append([]string{"-w", "-t", "nat", "-A"}, jump...)...)
}

func iptables(input, program string, arguments ...string) error {
	command := exec.Command(program, arguments...)
	command.Stdin = strings.NewReader(input)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(said)))
	}
	return nil
}
