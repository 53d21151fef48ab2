# The usual commands. `just` lists them.

python := justfile_directory() / "target/compat/venv/bin/python"

_list:
    @just --list --unsorted

# run a broker on 127.0.0.1:9092 with its data in ./data
run *arguments:
    cargo run --release -- {{ arguments }}

# run a cluster of three nodes on localhost:9092 to 9094
cluster *arguments:
    cargo build --release
    scripts/cluster {{ arguments }}

# check all code without building it
check:
    cargo check --locked --all-targets

# format all code
fmt:
    find src benches compat-tests fuzz/src fuzz/targets -name "*.rs" -exec rustfmt --edition 2024 {} +

# lint all code
lint:
    cargo clippy --locked --all-targets -- -D warnings

# run unit tests whose path has NAME in it
unit name="":
    cargo test --locked --lib {{ name }}

# run tests with stock clients and tools against one node, as: just stock -k topics
stock *arguments:
    scripts/fetch-stock-clients
    cargo test --locked --no-run
    cd compat-tests && {{ python }} -m pytest {{ arguments }}

# run tests of several nodes, as: just nodes -k tutorial
nodes *arguments:
    cargo test --locked --no-run
    SORDINI_BIN={{ justfile_directory() }}/target/debug/sordini scripts/test-cluster {{ arguments }}

# run everything that continuous integration runs
ci:
    .ci/run

# run the simulation with the seeds FROM to FROM + COUNT - 1
simulate from="1000" count="1000":
    scripts/simulate {{ from }} {{ count }}

# run the fuzz targets for SECONDS each
fuzz seconds="600" *targets:
    scripts/fuzz {{ seconds }} {{ targets }}

# run the microbenchmarks whose name has NAME in it
bench name="":
    cargo bench --bench hot -- {{ name }}

# write the generated pages docs/configuration.md and THIRD-PARTY.md
generate:
    SORDINI_UPDATE=1 cargo test --locked --lib configuration_page_equals_the_key_table
    scripts/third-party
