// Package kindnet is the pod network of a kind cluster, one process per node:
// pods get an address of their node's range from stock CNI plugins, every node
// has a route to the range of every other, and what leaves the cluster does so
// with the node's own address. IPv4 only.
package kindnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	// Somebody may flush the firewall or the routes: all is written anew this often.
	resync = time.Minute
	// A cluster is made node by node; one pass serves a burst of changes.
	settle = 50 * time.Millisecond
	retry  = time.Second
)

// node is what the network needs to know of a node.
type node struct {
	name    string
	address net.IP
	pods    *net.IPNet
}

// Run keeps this node's part of the network until it is told to end. Its
// environment says which node that is (NODE_NAME), which range all pods are in
// (POD_SUBNET), and where to find the API server before Services work
// (CONTROL_PLANE_ENDPOINT).
func Run() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv("NODE_NAME"), strings.Split(os.Getenv("POD_SUBNET"), ",")); err != nil {
		klog.ErrorS(err, "could not run the pod network")
		os.Exit(1)
	}
}

func run(ctx context.Context, self string, podSubnets []string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	if endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT"); endpoint != "" {
		config.Host = "https://" + endpoint
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	nodes := factory.Core().V1().Nodes()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // A pass is due already.
		}
	}
	if _, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(old, new any) { notifyIfMoved(old, new, notify) },
		DeleteFunc: func(any) { notify() },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), nodes.Informer().HasSynced) {
		return nil
	}
	next := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			next.Reset(settle)
		case <-next.C:
			all, err := nodes.Lister().List(labels.Everything())
			if err == nil {
				err = reconcile(self, podSubnets, known(all))
			}
			if err != nil {
				klog.ErrorS(err, "could not bring the network up to date; trying again")
				next.Reset(retry)
			} else {
				next.Reset(resync)
			}
		}
	}
}

// A node's status changes all the time, its address and range almost never.
func notifyIfMoved(old, new any, notify func()) {
	before, ok := parse(old.(*corev1.Node))
	after, stillOK := parse(new.(*corev1.Node))
	if ok != stillOK || ok && (!before.address.Equal(after.address) || before.pods.String() != after.pods.String()) {
		notify()
	}
}

func known(all []*corev1.Node) []node {
	var nodes []node
	for _, each := range all {
		if parsed, ok := parse(each); ok {
			nodes = append(nodes, parsed)
		}
	}
	return nodes
}

// parse answers false while the node has no address or no range for pods yet.
func parse(from *corev1.Node) (node, bool) {
	result := node{name: from.Name}
	for _, address := range from.Status.Addresses {
		if address.Type == corev1.NodeInternalIP && result.address == nil {
			result.address = net.ParseIP(address.Address).To4()
		}
	}
	for _, cidr := range from.Spec.PodCIDRs {
		if ip, pods, err := net.ParseCIDR(cidr); err == nil && ip.To4() != nil && result.pods == nil {
			result.pods = pods
		}
	}
	return result, result.address != nil && result.pods != nil
}

func reconcile(self string, podSubnets []string, nodes []node) error {
	var own *node
	var others []node
	for _, each := range nodes {
		if each.name == self {
			own = &each
		} else {
			others = append(others, each)
		}
	}
	// The routes first: once the CNI configuration is there, pods start.
	if err := syncRoutes(others); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	if own == nil {
		return nil // Its range comes with a later change of the node.
	}
	if err := syncMasquerade(own.pods, podSubnets, nodes); err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	if err := writeCNI(own.pods); err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	return nil
}
