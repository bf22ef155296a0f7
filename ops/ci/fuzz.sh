#!/usr/bin/env bash
# Fuzzes: builds all targets of fuzz/ once and runs each for so many seconds, as many at a time as there are cores.
#
#   ops/ci/fuzz.sh [SECONDS [TARGET ...]]     (default: 600 seconds of each)
#
# Needs a C++ compiler and nothing else: the compiler's own instrumentation, which stable Rust has, and the libFuzzer that
# the crate libfuzzer-sys brings. What is found lies in fuzz/artifacts/TARGET; the binary given that file runs it again.
set -euo pipefail
cd "$(dirname "$0")/../../fuzz"
seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
host=$(rustc -vV | sed -n 's/^host: //p')

echo "fuzz: building"
# The target is named so that build scripts and macros, which run on this machine, are not instrumented.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" cargo build --quiet --release --target "$host"

# Each line of seeds/TARGET.txt becomes a file of the corpus.
python3 - "${targets[@]}" <<'PYTHON'
import os, sys
for target in sys.argv[1:]:
    folder = os.path.join("corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(f"seeds/{target}.txt", encoding="ascii") as lines:
        for number, line in enumerate(lines):
            if not line.startswith("#"):
                with open(os.path.join(folder, f"seed-{number}"), "wb") as file:
                    file.write(line.rstrip("\n").encode().decode("unicode_escape").encode("latin-1"))
PYTHON

run() {
    local target=$1 log
    log=artifacts/$target.log
    mkdir -p "artifacts/$target"
    if "target/$host/release/$target" "corpus/$target" -max_total_time="$seconds" -max_len=2048 -timeout=10 \
        -rss_limit_mb=1024 -artifact_prefix="artifacts/$target/" -dict="dictionaries/tokens" -print_final_stats=1 \
        >"$log" 2>&1; then
        echo "fuzz: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs in $seconds s, nothing found"
    else
        tail -n 40 "$log"
        echo "fuzz: $target: FOUND something, see fuzz/$log and fuzz/artifacts/$target/"
        return 1
    fi
}
export -f run
export seconds host
echo "fuzz: $seconds s for each of ${targets[*]}"
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'run {}'
