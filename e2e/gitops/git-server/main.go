// Serves the Git repositories below a folder over HTTP on loopback, read-only, by Git's own http-backend.
package main

import (
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: git-server ADDRESS FOLDER")
	}
	address, folder := os.Args[1], os.Args[2]
	programs, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		log.Fatalf("asking git for its programs: %v", err)
	}
	backend := filepath.Join(strings.TrimSpace(string(programs)), "git-http-backend")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatalf("listening: %v", err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		environment := []string{
			"GIT_PROJECT_ROOT=" + folder,
			"GIT_HTTP_EXPORT_ALL=1",
			"GIT_PROTOCOL=" + request.Header.Get("Git-Protocol"),
		}
		handler := cgi.Handler{Path: backend, Env: environment}
		handler.ServeHTTP(answer, request)
	})))
}
