// Checks the page against a real coordinator: `node tests/run.mjs PHALANX [--strict]`, where PHALANX is the binary
// (target/release/phalanx without it). Starts a coordinator and workers in a folder of their own, trains a run and
// sweeps, loses workers, drives the page in a browser, and ends with the exit code of the checks. Figures, such as how long
// an interaction takes, go to target/page/figures.json; with --strict they are held to their limits, which says something
// about the page only on a machine that has nothing else to do. What else is given goes to `node --test`.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { constants, setPriority, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const here = fileURLToPath(new URL(".", import.meta.url));
const [binaryGiven, ...options] = process.argv.slice(2);
const strict = options.includes("--strict");
const testOptions = options.filter((option) => option !== "--strict");
const phalanx = resolve(binaryGiven ?? join(root, "target/release/phalanx"));

/** So long everything together may take. */
const LIMIT_MS = 20 * 60_000;
/** Part of a path in a job: what reads it into a page as more than text has failed. */
const HOSTILE = '<img src=x onerror="globalThis.__pwned=1">';

/** One that can be written, and a server that is not there. */
const SINKS = ["--sink", "tensorboard=board", "--sink", "webhook=http://127.0.0.1:9/hook"];

const place = mkdtempSync(join(tmpdir(), "phalanx-page-"));
const children = [];

/** Starts a process that ends with us. What it says is kept, and shown if things go wrong. */
function start(command, args, options = {}) {
  const child = spawn(command, args, { cwd: place, stdio: ["pipe", "pipe", "pipe"], ...options });
  child.said = "";
  child.stdout?.on("data", (data) => (child.said = (child.said + data).slice(-20_000)));
  child.stderr?.on("data", (data) => (child.said = (child.said + data).slice(-20_000)));
  child.ended = new Promise((done) => child.on("close", (code, signal) => done(code ?? signal)));
  child.on("error", (error) => (child.said += error.message));
  children.push(child);
  return child;
}

/** Runs a process to its end, which must be `expected`. */
async function finished(args, expected = 0) {
  const child = start(phalanx, args);
  const code = await child.ended;
  if (code !== expected) throw new Error(`phalanx ${args.join(" ")} ended with ${code}:\n${child.said}`);
}

async function until(what, probe, timeoutMs = 300_000) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`timed out: ${what}`);
    await new Promise((done) => setTimeout(done, 200));
  }
}

const workers = [];

function startWorker(at) {
  workers.push(start(phalanx, ["worker", ...at, "--threads", "1", "--exit-with-stdin"]));
}

/** From now on the browser and the coordinator go before the workers. */
function yieldToTheBrowser() {
  for (const { pid, exitCode, signalCode } of workers) {
    if (pid !== undefined && exitCode === null && signalCode === null) setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL);
  }
}

function file(name, text) {
  writeFileSync(join(place, name), text);
  return name;
}

function job({ name, images, workers = 1, size = "dim: 32, depth: 2", epochs, saves = 2, more = "" }) {
  const digits = join(root, "datasets/digits");
  const quoted = JSON.stringify(images ?? join(digits, "images-idx3-ubyte.gz"));
  return file(
    `${name}.yaml`,
    `version: 1
name: ${name}
seed: 1
workers: ${workers}
data: {format: idx, images: ${quoted}, labels: ${JSON.stringify(join(digits, "labels-idx1-ubyte.gz"))}, holdout: 0.2, pixel_max: 16}
model: {type: vit, image: [8, 8], channels: 1, patch: 4, ${size}, heads: 4, classes: 10}
train: {epochs: ${epochs}, global_batch: 64, micro_batches: 4}
schedule: {type: cosine, lr: 1e-3, warmup_steps: 20}
eval: {every_epochs: 2}
checkpoint: {every_epochs: ${saves}, keep_last: 3, keep_best: 1}
${more}`,
  );
}

function sweep(name, rest) {
  return file(`${name}.yaml`, `version: 1\nname: ${name}\nseed: 0\njob: trial.yaml\n${rest}`);
}

const jobs = () => ({
  run: job({ name: "page-run", workers: 2, size: "dim: 64, depth: 3", epochs: 20000, saves: 6, more: "inspect: {every_steps: 50}\n" }),
  hostile: job({ name: "page-hostile", images: join(place, `${HOSTILE}\u202egnp.exe`), epochs: 3 }),
  trial: job({ name: "trial", epochs: 18 }),
  sweep: sweep(
    "page-sweep",
    `space:
  schedule.lr: {log_uniform: [5e-4, 1e-2]}
  model.depth: {integer: [1, 3]}
  optimizer.type: {categorical: [adamw, sgd]}
  optimizer.momentum: {uniform: [0.5, 0.99], when: {optimizer.type: sgd}}
objectives:
  - metric: eval_accuracy
  - metric: eval_loss
searcher: {type: random}
scheduler: {type: asha, min: {epochs: 2}, max: {epochs: 18}, eta: 3, mode: stop}
trials: 24
`,
  ),
  population: sweep(
    "page-population",
    `space:
  schedule.lr: {log_uniform: [2e-4, 1e-2]}
  model.dropout: {uniform: [0, 0.3]}
searcher: {type: population, population: 6, interval: {epochs: 2}, quantile: 0.34, resample_probability: 0.25, perturb: [0.8, 1.2]}
trials: 24
`,
  ),
  live: sweep("page-live", `space:\n  schedule.lr: {log_uniform: [2e-4, 1e-2]}\nsearcher: {type: random}\ntrials: 5000\n`),
});

async function main() {
  const files = jobs();
  const coordinator = start(phalanx, ["coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state-dir", "state", ...SINKS]);
  const found = (word) => new RegExp(`^${word} at (http://\\S+)`, "m").exec(coordinator.said)?.[1];
  const url = await until("the coordinator says where its page is", () => {
    if (coordinator.exitCode !== null) throw new Error(coordinator.said);
    return found("dashboard");
  });
  const at = ["--coordinator", found("coordinator")];
  const ask = async (path) => (await fetch(url + path)).json();
  const env = {
    ...process.env,
    PHALANX_URL: url,
    PHALANX_RUN: "page-run",
    PHALANX_SWEEP: "page-sweep",
    PHALANX_POPULATION: "page-population",
    PHALANX_LIVE_SWEEP: "page-live",
    PHALANX_HOSTILE: "page-hostile",
    PHALANX_HOSTILE_TEXT: HOSTILE,
    PHALANX_STRICT: strict ? "1" : "0",
  };
  const test = async (name) => {
    const checks = start(process.execPath, ["--test", "--test-reporter=spec", ...testOptions, join(here, "page", name)], {
      env,
      cwd: here,
      stdio: "inherit",
    });
    return (await checks.ended) === 0;
  };

  const runNow = () => ask("/api/v1/runs/page-run");
  const kill = async (ranks) => {
    const all = (await ask("/api/v1/cluster")).workers;
    const members = all.filter(({ connected, run, rank }) => connected && run === "page-run" && ranks.includes(rank));
    for (const { pid } of members) process.kill(pid, "SIGKILL");
  };
  const goesOn = (least) => async () => {
    const { generation, state, step } = await runNow();
    return generation >= least && state === "running" && step > 0;
  };

  const rest = async (kind, name) => {
    const path = `/api/v1/${kind}/${name}`;
    await fetch(`${url}${path}/stop`, { method: "POST", headers: { "X-Phalanx": "1" } });
    await until(`${name} rests`, async () => (await ask(path)).state === "stopped");
  };

  const begun = Date.now();
  const took = () => `${((Date.now() - begun) / 1000).toFixed(1)} s`;
  const emptyPassed = await test("empty.test.mjs");
  for (let i = 0; i < 5; i++) startWorker(at);
  await until("five workers are there", async () => (await ask("/api/v1/cluster")).workers.length === 5);
  await finished(["launch", files.hostile, ...at], 5);
  await Promise.all([finished(["sweep", files.sweep, ...at]), finished(["sweep", files.population, ...at])]);
  start(phalanx, ["launch", files.run, ...at]);
  await until("the run has checkpoints", async () => (await runNow()).checkpoints?.length >= 2);
  // One worker falls: the other holds the newest step, and nothing is taken back.
  await kill([1]);
  await until("the run goes on without the lost worker", goesOn(2));
  // Both fall between two checkpoints: what came after the older one is taken back.
  // Another checkpoint may be just in time; then they fall again.
  const isRolledBack = async () => (await ask("/api/v1/runs/page-run/series?points=100")).rolled_back.length > 0;
  for (let generation = 3; generation === 3 || !(await isRolledBack()); generation++) {
    await until("the run is well past a checkpoint", async () => {
      const { checkpoints, step } = await runNow();
      return step > checkpoints.at(-1).step + 20;
    });
    await kill([0, 1]);
    for (let i = 0; i < (generation === 3 ? 3 : 2); i++) startWorker(at);
    await until("the run goes on from its checkpoint", goesOn(generation));
  }
  start(phalanx, ["sweep", files.live, ...at]);
  await until("the live sweep trains", async () => (await ask("/api/v1/sweeps/page-live")).trials?.length > 0);
  console.log(`what the page is to show was made in ${took()}`);
  // Views are looked at in peace; what is live goes on when its checks come.
  await rest("runs", "page-run");
  await rest("sweeps", "page-live");
  yieldToTheBrowser();
  const passed = await test("page.test.mjs");
  console.log(`everything took ${took()}`);
  return passed && emptyPassed;
}

let passed = false;
const limit = setTimeout(() => {
  console.error("the checks take too long");
  cleanUp();
  process.exit(1);
}, LIMIT_MS);

function cleanUp() {
  for (const child of children.reverse()) if (child.exitCode === null) child.kill("SIGKILL");
  rmSync(place, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}

process.on("SIGINT", () => {
  cleanUp();
  process.exit(130);
});
try {
  passed = await main();
} catch (error) {
  console.error(error.message);
} finally {
  clearTimeout(limit);
  cleanUp();
}
process.exit(passed ? 0 : 1);
