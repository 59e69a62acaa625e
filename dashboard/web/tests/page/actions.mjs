// What can be done. Last, since it changes what the coordinator does.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, describe, test } from "node:test";

import { ask, awake, liveSweep, offers, onPage, run, stat, sweep, until, url, views } from "./browser.mjs";

describe("actions", () => {
  before(awake);

  test("a run is live, stopped and resumed", () =>
    onPage(views.run.path, async (page) => {
      const step = async () => Number((await stat(page, "Step").innerText()).split("/")[0].replace(/\D/g, ""));
      const before = await step();
      await until("steps come in by themselves", async () => (await step()) > before);
      await page.getByRole("button", { name: "Stop", exact: true }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
      await page.getByRole("dialog").waitFor({ state: "detached" });
      assert.ok(await page.getByRole("button", { name: "Stop", exact: true }).isVisible(), "cancelling changes nothing");
      await page.getByRole("button", { name: "Stop", exact: true }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
      await page.getByRole("status").getByText("is stopping").waitFor();
      await page.locator(".head .state", { hasText: "stopped" }).waitFor();
      assert.equal((await ask(`/api/v1/runs/${run}`)).body.state, "stopped");
      await page.getByRole("button", { name: "Resume" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Resume" }).click();
      await page.locator(".head .state", { hasText: "running" }).waitFor();
    }));

  test("a checkpoint is pinned", () =>
    onPage(views.run.path, async (page) => {
      await page.getByRole("region", { name: "Checkpoints" }).last().locator("tbody tr").first().waitFor();
      if (!(await offers("/api/v1/runs/{name}/pin"))) {
        assert.equal(await page.getByRole("button", { name: "Pin" }).count(), 0);
        return;
      }
      const row = page.getByRole("region", { name: "Checkpoints" }).last().locator("tbody tr", { has: page.getByRole("button", { name: "Pin" }) }).first();
      await row.getByRole("button", { name: "Pin" }).click();
      const title = await page.getByRole("dialog").innerText();
      const number = Number(/checkpoint of step (\d+)/.exec(title)[1]);
      await page.getByRole("dialog").getByRole("button", { name: "Pin" }).click();
      await page.locator(".tag", { hasText: "pinned" }).first().waitFor();
      const { checkpoints } = (await ask(`/api/v1/runs/${run}`)).body;
      assert.equal(checkpoints.find((one) => one.step === number).pinned, true);
    }));

  test("results are exported", () =>
    onPage(views.run.path, async (page) => {
      for (const [path, file] of [[views.run.path, run], [views.sweep.path, sweep]]) {
        await page.goto(url + path);
        await page.getByRole("button", { name: "Export CSV" }).click();
        const download = page.waitForEvent("download");
        await page.getByRole("link", { name: "Download" }).click();
        const text = readFileSync(await (await download).path(), "utf8");
        assert.ok(text.split("\n").length > 3, `${file}.csv has lines`);
        assert.match(text.split("\n")[0], /,/);
      }
    }));

  test("a sweep is stopped, resumed and given a priority", () =>
    onPage(`/sweeps/${liveSweep}`, async (page) => {
      const stop = page.getByRole("button", { name: "Stop", exact: true });
      await stop.waitFor();
      if (await offers("/api/v1/sweeps/{name}/priority")) {
        await page.getByRole("button", { name: "Priority" }).click();
        await page.getByRole("dialog").getByLabel("Priority").fill("5");
        await page.getByRole("dialog").getByRole("button", { name: "Change" }).click();
        await until("the priority is shown", async () => (await stat(page, "Priority").innerText()) === "5");
      } else {
        assert.equal(await page.getByRole("button", { name: "Priority" }).count(), 0);
      }
      await stop.click();
      await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
      await page.locator(".head .state", { hasText: "stopped" }).waitFor();
      await page.getByRole("button", { name: "Resume" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Resume" }).click();
      await page.locator(".head .state", { hasText: /running|waiting/ }).waitFor();
    }));

  test("a refusal is shown in the dialog", () =>
    onPage(views.run.path, async (page) => {
      await page.route("**/stop", (route) => route.continue({ headers: { ...route.request().headers(), "x-phalanx": "0" } }));
      await page.getByRole("button", { name: "Stop", exact: true }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
      await page.getByRole("dialog").getByRole("alert").waitFor();
    }, { expectsErrors: true }));

  test("a worker is drained", () =>
    onPage("/", async (page) => {
      const workers = page.getByRole("region", { name: "Workers" }).last();
      await workers.locator("tbody tr").first().waitFor();
      if (!(await offers("/api/v1/workers/{id}/drain"))) {
        assert.equal(await page.getByRole("button", { name: "Drain" }).count(), 0);
        return;
      }
      const row = workers.locator("tbody tr", { has: page.getByRole("button", { name: "Drain" }) }).first();
      const id = await row.getByRole("rowheader").innerText();
      await row.getByRole("button", { name: "Drain" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Drain" }).click();
      await page.getByRole("status").getByText("takes no further work").waitFor();
      await until("the worker drains or has gone", async () => {
        const worker = (await ask("/api/v1/cluster")).body.workers.find((one) => one.id === id);
        return worker === undefined || worker.draining || !worker.connected;
      });
    }));
});
