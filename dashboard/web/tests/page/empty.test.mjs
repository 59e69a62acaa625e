// The page of a coordinator that has nothing yet.
import assert from "node:assert/strict";
import { test } from "node:test";

import "./session.mjs";
import { accessible, onPage } from "./browser.mjs";

test("an empty cluster says what to do", () =>
  onPage("/", async (page) => {
    await page.getByText("phalanx launch configs/digits-vit.yaml").waitFor();
    await page.getByText("phalanx sweep configs/digits-sweep.yaml").waitFor();
    await page.getByText("phalanx worker --coordinator").waitFor();
    assert.equal(await page.getByRole("button", { name: "Stop" }).count(), 0);
    await accessible(page, "empty cluster");
  }));

test("nothing to compare says what to do", () =>
  onPage("/compare", async (page) => {
    await page.getByText("Enter the name of a run").waitFor();
    await accessible(page, "nothing to compare");
  }));
