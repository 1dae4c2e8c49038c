package kindnet

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
)

const cniFile = "/etc/cni/net.d/10-kindnet.conflist"

type object = map[string]any

// writeCNI tells the container runtime how a pod gets its address. The runtime
// watches the folder and takes the node for unready until the file is there.
func writeCNI(pods *net.IPNet) error {
	mtu, err := linkMTU()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(object{
		"cniVersion": "0.4.0",
		"name":       "kindnet",
		"plugins": []object{
			{
				"type": "ptp",
				"mtu":  mtu,
				"ipam": object{
					"type": "host-local",
					// Pods don't survive a restart of the node, their addresses shouldn't either.
					"dataDir": "/run/cni-ipam-state",
					"ranges":  [][]object{{{"subnet": pods.String()}}},
					"routes":  []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	if present, err := os.ReadFile(cniFile); err == nil && bytes.Equal(present, text) {
		return nil
	}
	// The runtime must never read half a file; it ignores other endings.
	unfinished := cniFile + ".part"
	if err := os.WriteFile(unfinished, text, 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, cniFile)
}
