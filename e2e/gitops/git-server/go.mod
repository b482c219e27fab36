// Serves Git repositories over HTTP: see main.go.
module lamina.dev/gitops/git-server

go 1.26.0
