// What the checks of the page share: a browser, where the coordinator is, and what must hold on every page.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium } from "playwright-core";

/** A variable of the environment that must be set. */
function given(name) {
  const value = process.env[name];
  assert.ok(value, `${name} must be set: tests/run.mjs does it`);
  return value;
}

/** Where the coordinator's page is. */
export const url = given("PHALANX_URL").replace(/\/$/, "");
/** A run that trains, with checkpoints. */
export const run = given("PHALANX_RUN");
/** A sweep with two objectives and trials that ended. */
export const sweep = given("PHALANX_SWEEP");
/** A population. */
export const population = given("PHALANX_POPULATION");
/** A run whose job and reason hold `hostileText`. */
export const hostile = given("PHALANX_HOSTILE");
/** What a page must show and never carry out. */
export const hostileText = given("PHALANX_HOSTILE_TEXT");

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
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
  browser = await chromium.launch({ executablePath: process.env["PHALANX_CHROMIUM"] ?? "/usr/bin/chromium", args: FLAGS });
}

/** Ends it. */
export async function close() {
  await browser?.close();
}

/**
 * Opens a page of its own and hands it to `check`; afterwards nothing may have gone wrong in it: no error, no warning, no
 * violation of the content security policy, no dialog of a script, no request to anybody else.
 */
export async function onPage(path, check, { width = 1280, height = 900, scheme = "light", expectsErrors = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
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
    await page.goto(url + path);
    await check(page, context);
    assert.equal(await page.evaluate(() => globalThis.__pwned), undefined, "a script from a text was carried out");
    if (!expectsErrors) assert.deepEqual(wrong, []);
  } finally {
    await context.close();
  }
}

/** Fails if axe finds something serious. */
export async function accessible(page, what) {
  // Evaluated by the debugger, so the content security policy of the page is as it is for everybody.
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const serious = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary}`).join(" | ")}`);
  assert.deepEqual(told, [], `axe on ${what}`);
}

/** Waits until `probe` says true; `what` tells what was waited for. */
export async function until(what, probe, timeoutMs = 30_000) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    if (await probe()) return;
    assert.ok(Date.now() < end, `timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
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
