# `just --list` shows what there is. Without just, copy the commands.

# Everything that must hold; writes nothing but target/.
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# Licences, bans and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny --offline check bans licenses sources

# Rewrites what can be rewritten.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# Replays one seed of the simulation and prints every event and effect.
sim *SEED:
    cargo run --quiet --package domain --example sim -- {{SEED}}

# A longer search for trouble: many seeds of the simulation, then the tests with real processes.
soak SEEDS="1200..20000":
    mkdir -p bench/results
    cargo run --release --quiet --package domain --example sim -- --seeds {{SEEDS}} | tee bench/results/soak-sim.txt
    cargo run --release --quiet --package domain --example sim -- --sweep --seeds {{SEEDS}} | tee bench/results/soak-sweeps.txt
    cargo test --release --package e2e | tee bench/results/soak-e2e.txt
    cargo build --release
    python3 bench/kills.py

# Measures; writes to bench/results/.
bench:
    cargo build --release
    python3 bench/spine.py
    python3 bench/fashion.py
    python3 bench/collective.py
    python3 bench/training.py
    cargo build --release --workspace --bins --examples
    python3 bench/load.py
    python3 bench/engine.py
    cargo build --release --package domain --examples
    python3 bench/search.py
    python3 bench/tables.py
