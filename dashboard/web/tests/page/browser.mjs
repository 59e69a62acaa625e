// What the checks of the page share: a browser, where the coordinator is, and what must hold on every page.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

/** A variable of the environment that must be set. */
function given(name) {
  const value = process.env[name];
  assert.ok(value, `${name} must be set: tests/run.mjs does it`);
  return value;
}

/** Where the coordinator's page is. */
export const url = given("PHALANX_URL").replace(/\/$/, "");
/** A run that trains, with checkpoints, groups that were lost and steps that were taken back. */
export const run = given("PHALANX_RUN");
/** A sweep with two objectives and trials that ended. */
export const sweep = given("PHALANX_SWEEP");
/** A population. */
export const population = given("PHALANX_POPULATION");
/** A sweep that goes on. */
export const liveSweep = given("PHALANX_LIVE_SWEEP");
/** A run whose job and reason hold `hostileText`. */
export const hostile = given("PHALANX_HOSTILE");
/** What a page must show and never carry out. */
export const hostileText = given("PHALANX_HOSTILE_TEXT");
/** Whether figures are held to their limits: a busy machine says nothing about the page. */
const strict = process.env["PHALANX_STRICT"] === "1";

/** So long anything may take that is waited for, on a busy machine too. */
export const PATIENCE_MS = Number(process.env["PHALANX_PATIENCE_MS"] ?? 90_000);

/** Every view: its path, and what is there once it has all that it shows. */
export const views = {
  cluster: { path: "/", ready: ".events li" },
  run: { path: `/runs/${run}`, ready: ".plots .plot:nth-child(6) canvas" },
  configuration: { path: `/runs/${run}?tab=configuration&diff=${sweep}.0`, ready: ".spec thead th:nth-child(3)" },
  log: { path: `/runs/${run}?tab=log`, ready: ".log-line" },
  data: { path: `/runs/${run}?tab=data`, ready: ".audit" },
  model: { path: `/runs/${run}?tab=model`, ready: ".heads canvas ~ figcaption" },
  uninspected: { path: `/runs/${sweep}.0?tab=model`, ready: "[aria-label=Layers] tbody tr" },
  failed: { path: `/runs/${hostile}`, ready: ".events li" },
  compare: { path: `/compare?runs=${run},${sweep}.0,${sweep}.1`, ready: ".plots .plot:nth-child(6) canvas" },
  sweep: { path: `/sweeps/${sweep}`, ready: ".grid-row" },
  trial: { path: `/sweeps/${sweep}?trial=0`, ready: ".side-decisions li" },
  results: { path: `/sweeps/${sweep}?tab=results`, ready: ".plot canvas" },
  parameters: { path: `/sweeps/${sweep}?tab=parameters&contour=1`, ready: ".scatter canvas" },
  rungs: { path: `/sweeps/${sweep}?tab=rungs`, ready: ".decisions li" },
  lineage: { path: `/sweeps/${population}?tab=lineage`, ready: ".family" },
  specification: { path: `/sweeps/${sweep}?tab=specification`, ready: ".spec tbody tr" },
};

/** Where pictures and figures go. */
const folder = process.env["PHALANX_PAGE_OUT"] ?? fileURLToPath(new URL("../../../../target/page/", import.meta.url));

/** A file for what a check leaves. */
export function output(name) {
  mkdirSync(folder, { recursive: true });
  return `${folder.replace(/\/$/, "")}/${name}`;
}

const figures = {};

/** Takes down a figure; it is held to its limit where figures are. */
export function measure(name, value, { unit = "ms", limit = null } = {}) {
  const rounded = Number(value.toPrecision(4));
  figures[name] = { value: rounded, unit, limit };
  writeFileSync(output("figures.json"), `${JSON.stringify(figures, null, 2)}\n`);
  console.log(`figure: ${name}: ${rounded} ${unit}${limit === null ? "" : ` (limit ${limit})`}`);
  if (strict && limit !== null) assert.ok(value <= limit, `${name}: ${rounded} ${unit} is more than ${limit}`);
}

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;

/** Starts the browser. */
export async function open() {
  const executablePath = process.env["PHALANX_CHROMIUM"] ?? "/usr/bin/chromium";
  browser = await chromium.launch({ executablePath, args: FLAGS, timeout: PATIENCE_MS });
}

/** Ends it. */
export async function close() {
  await browser?.close();
}

/**
 * Opens a page of its own and hands it to `check`; afterwards nothing may have gone wrong in it: no error, no warning, no
 * violation of the content security policy, no dialog of a script, no request to anybody else.
 */
export async function onPage(path, check, { width = 1280, height = 900, scheme = "light", expectsErrors = false, prepare } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const wrong = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) wrong.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${url}/`)) wrong.push(`request to ${request.url()}`);
  });
  try {
    await prepare?.(page);
    await page.goto(url + path);
    await check(page, context);
    assert.equal(await page.evaluate(() => globalThis.__pwned), undefined, "a script from a text was carried out");
    if (!expectsErrors) assert.deepEqual(wrong, []);
  } finally {
    await context.close();
  }
}

/** Waits until a view is live and has what it shows. */
export async function settled(page, { ready } = {}) {
  await page.locator("h1").first().waitFor({ state: "attached" });
  await page.locator(".live-open").waitFor();
  await page.waitForLoadState("load");
  if (ready) await page.locator(ready).first().waitFor();
  await page.waitForFunction(() => !document.querySelector("main .loading"));
  await frames(page);
}

/** Waits for what was asked for to be drawn. */
export async function frames(page) {
  await page.evaluate(async () => {
    for (let i = 0; i < 3; i++) await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  });
}

/** Fails if axe finds something serious. */
export async function accessible(page, what) {
  // Evaluated by the debugger, so the content security policy of the page is as it is for everybody.
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axeSource);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const serious = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary}`).join(" | ")}`);
  assert.deepEqual(told, [], `axe on ${what}`);
}

/** Waits until `probe` says true; `what` tells what was waited for. */
export async function until(what, probe, timeoutMs = PATIENCE_MS) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    if (await probe()) return;
    assert.ok(Date.now() < end, `timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** The number under a label in the head of a view. */
export function stat(page, label) {
  return page.locator(".stat", { has: page.locator("dt", { hasText: new RegExp(`^${label}$`) }) }).locator("dd");
}

/** Whether the coordinator can be told this: what it cannot be told the page must not offer. */
export async function offers(path) {
  const { body } = await ask("/api/openapi.json");
  assert.ok(Object.keys(body.paths).length > 10, "the description of the interface has paths");
  return path in body.paths;
}

/** Asks the coordinator itself. */
export async function ask(path, init) {
  const response = await fetch(url + path, init);
  return { status: response.status, body: await response.json().catch(() => null) };
}

/** Lets the run and the live sweep go on, if they rest. */
export async function awake() {
  for (const path of [`/api/v1/runs/${run}`, `/api/v1/sweeps/${liveSweep}`]) {
    const state = async () => (await ask(path)).body.state;
    if ((await state()) === "stopped") await tell(`${path}/resume`);
    await until(`${path} goes on`, async () => (await state()) === "running");
  }
}

/** Tells the coordinator something, as the page does. */
export async function tell(path) {
  const { status, body } = await ask(path, { method: "POST", headers: { "X-Phalanx": "1" } });
  assert.equal(status, 200, `${path}: ${JSON.stringify(body)}`);
}
