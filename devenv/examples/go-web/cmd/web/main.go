// Command web serves a few pages from a volume, and tells its version.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const (
	shipped = "/app/static"
	served  = "/srv/static"
)

func main() {
	if err := fill(served, shipped); err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /version", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(answer, greeting)
	})
	http.Handle("GET /", http.FileServer(http.Dir(served)))
	if err := serve(":8080"); err != nil {
		log.Fatal(err)
	}
}

// fill copies the image's pages into a volume that has none yet: the root of
// the container can't be written.
func fill(volume, image string) error {
	if _, err := os.Stat(filepath.Join(volume, "index.html")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.CopyFS(volume, os.DirFS(image))
}

// serve answers requests until SIGTERM, then finishes those in flight.
func serve(address string) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	server := &http.Server{Addr: address, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
		limit, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return server.Shutdown(limit)
	}
}
