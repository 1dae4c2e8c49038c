//go:build kind

package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubeadmutil "k8s.io/kubernetes/cmd/kubeadm/app/util/errors"

	"devloop.dev/node/kindnet"
)

// What only the image of a kind node needs: kind sets a node up with kubeadm
// and kubectl, and brings its own pod network.
func init() {
	components["kubeadm"] = func() { kubeadmutil.HandleError(kubeadm.Run()) }
	components["kubectl"] = runKubectl
	components["kindnetd"] = kindnet.Run
}

func runKubectl() {
	// Errors here are reported again, and better, when the command parses its flags.
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}
