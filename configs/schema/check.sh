#!/usr/bin/env bash
# Checks the schemas with other people's reader of them: every example is accepted, and of the broken files in e2e/broken all
# are refused but those in beyond_schema.txt, whose mistakes are in how keys fit each other.
#
# Needs check-jsonschema (PyPI). Runs in the root of the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
schema_of() {
    if grep -q '^space:' "$1"; then echo configs/schema/sweep.json; else echo configs/schema/job.json; fi
}
check-jsonschema --check-metaschema configs/schema/job.json configs/schema/sweep.json
for file in configs/*.yaml bench/curves/*.yaml; do
    check-jsonschema --quiet --schemafile "$(schema_of "$file")" "$file" || { echo "$file is refused" >&2; exit 1; }
done
accepted=$(
    for file in e2e/broken/*.yaml; do
        if check-jsonschema --quiet --schemafile "$(schema_of "$file")" "$file" > /dev/null 2>&1; then basename "$file"; fi
    done
)
diff <(echo "$accepted") e2e/broken/beyond_schema.txt || { echo "other broken files are accepted than those listed" >&2; exit 1; }
echo "the schemas accept all examples, and refuse $(($(ls e2e/broken/*.yaml | wc -l) - $(wc -l < e2e/broken/beyond_schema.txt))) broken files"
