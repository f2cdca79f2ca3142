// A Go server as its documentation has it: SIGTERM shuts it down.
// With the argument "dies" nobody has thought of SIGTERM.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(time.Second)
		}
		fmt.Fprint(w, "ok")
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT")}
	if len(os.Args) > 1 && os.Args[1] == "dies" {
		fmt.Println(server.ListenAndServe())
		return
	}
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		<-stop.Done()
		server.Shutdown(context.Background())
		close(done)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Println(err)
		os.Exit(1)
	}
	<-done
}
