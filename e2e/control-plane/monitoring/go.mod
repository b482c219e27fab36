// The kinds of the Prometheus operator, for the tests of the chart: nothing of it is compiled.
module lamina.dev/control-plane/monitoring

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
