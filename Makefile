# What people run. The logic is in Rust programs: e2e/src/bin.
.PHONY: demo demo-down test lint unit simulation comparison api bus host node metrics gitops all bench simulate peers deb krew images images-verify generate

# Without -p: a part of the workspace would have its dependencies built anew, with fewer features.
RUN := cargo run --quiet --bin
LANES := ./e2e/ready && cargo build --quiet --workspace --bins --tests && exec target/debug/lamina-lanes $(if $(WITHIN),--within $(WITHIN))

demo:
	@./e2e/ready && cargo build --quiet --workspace --bins && exec target/debug/lamina-lab demo
demo-down:
	@$(RUN) lamina-lab -- demo-down
test:
	@$(LANES)
lint unit simulation comparison api bus host node metrics gitops all:
	@$(LANES) $@
simulate:
	@cargo run --quiet $(if $(PAIRS),--profile simulation) --bin lamina-simulate -- $(if $(SEED),--seed $(SEED)) $(if $(BUDGET),--budget $(BUDGET)) \
		$(if $(PAIRS),--pairs) $(if $(SCENARIO),--scenario "$(SCENARIO)")
peers:
	@./e2e/ready && $(RUN) lamina-peers -- write
bench:
	@cargo bench --quiet -p lamina-operator --bench placement
	@cargo bench --quiet -p lamina-node-agent --bench hardware
	@./e2e/ready && cargo build --quiet --workspace --bins --release && exec target/release/lamina-lab bench
deb:
	@./e2e/ready && cargo build --quiet --release -p lamina-node-agent -p lamina-cli --bins && $(RUN) lamina-deb
krew:
	@cargo build --quiet --release -p lamina-cli --bins && $(RUN) lamina-krew -- linux/$(subst aarch64,arm64,$(subst x86_64,amd64,$(shell uname -m)))=target/release/kubectl-lamina --address $(ADDRESS)
images:
	@$(RUN) lamina-images -- build
images-verify:
	@$(RUN) lamina-images -- verify
generate:
	@$(RUN) crdgen
	@$(RUN) lamina-chart
	@$(RUN) lamina-metrics-reference
	@$(RUN) lamina-docs
