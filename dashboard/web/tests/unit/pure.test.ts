import { describe, expect, test } from "vitest";

import type { SweepTrial, Worker } from "../../src/api/types";
import { family } from "../../src/lib/family";
import { flatten } from "../../src/lib/flatten";
import { bytes, cut, duration, measured, metric, parameter, percent } from "../../src/lib/format";
import { heat } from "../../src/lib/heat";
import { linearTicks, logTicks, numberAxis } from "../../src/lib/scale";
import { readSearch } from "../../src/lib/search";
import { bestSoFar, smooth } from "../../src/lib/smooth";
import { surface } from "../../src/lib/surface";
import { listOf, listText, rangeOf, rangeText, routeOf, runPath, withParameter } from "../../src/state/address";
import { paces, stragglers } from "../../src/views/cluster/stragglers";
import { shares } from "../../src/views/phases";
import { ranksOf } from "../../src/views/run/log";
import { between } from "../../src/views/run/series";
import { brushesOf, brushesText } from "../../src/views/sweep/brush";
import { bestOf } from "../../src/views/sweep/columns";

/** A trial of which only some things matter. */
function trial(some: Partial<SweepTrial>): SweepTrial {
  return {
    number: 0,
    run: "s.0",
    state: "completed",
    reason: "",
    parameters: {},
    values: null,
    budget: 0,
    step: 0,
    parent: null,
    metrics: {},
    started_at: null,
    ended_at: null,
    ...some,
  };
}

describe("smoothing", () => {
  test("leaves everything as it is without weight", () => {
    expect(smooth([3, null, 1], 0)).toEqual([3, null, 1]);
  });
  test("of a constant is the constant from the first value on", () => {
    expect(smooth([2, 2, 2], 0.9).map((value) => value?.toFixed(9))).toEqual(["2.000000000", "2.000000000", "2.000000000"]);
  });
  test("weighs the past, and passes over what is not finite", () => {
    const [a, b, c] = smooth([1, NaN, 3], 0.5);
    expect(a).toBe(1);
    expect(b).toBeNaN();
    expect(c).toBeCloseTo((1 * 0.25 + 3 * 0.5) / 0.75, 12);
  });
  test("the best so far follows the goal", () => {
    expect(bestSoFar([null, 2, 3, 1], "minimize")).toEqual([null, 2, 2, 1]);
    expect(bestSoFar([2, NaN, 3, 1], "maximize")).toEqual([2, 2, 3, 3]);
  });
});

describe("the address", () => {
  test.each([
    ["/", { view: "cluster" }],
    ["/runs/a.7", { view: "run", name: "a.7" }],
    ["/runs/%3Cimg%3E/", { view: "run", name: "<img>" }],
    ["/sweeps/s", { view: "sweep", name: "s" }],
    ["/compare", { view: "compare" }],
    ["/runs", { view: "unknown" }],
    ["/runs/a/b", { view: "unknown" }],
    ["/runs/%E0%A4%A", { view: "unknown" }],
  ])("%s leads to a view", (path, expected) => {
    expect(routeOf(path)).toEqual(expected);
  });
  test("a name survives it", () => {
    const name = "a/b?c=d&e%#";
    expect(routeOf(runPath(name).split("?")[0] ?? "")).toEqual({ view: "run", name });
  });
  test("lists, ranges and brushes survive it", () => {
    const list = ["a,b", "100%", "c"];
    expect(listOf(listText(list))).toEqual(list);
    expect(listOf("")).toEqual([]);
    expect(rangeOf(rangeText([1.5, 20]))).toEqual([1.5, 20]);
    expect([rangeOf("5~1"), rangeOf("x~2"), rangeOf("1"), rangeOf("")]).toEqual([null, null, null, null]);
    const brushes = [
      { column: "p:a.b", from: 0.1, to: 0.5 },
      { column: "o:x,@y~", from: 0, to: 1 },
    ];
    expect(brushesOf(brushesText(brushes))).toEqual(brushes);
    expect(brushesOf("junk,p@0.9~0.1,%@0~1")).toEqual([]);
  });
  test("says only what differs from the usual", () => {
    expect(withParameter("a=1", "b", "2", "")).toBe("a=1&b=2");
    expect(withParameter("a=1&b=2", "b", "", "")).toBe("a=1");
  });
});

describe("numbers", () => {
  test.each([
    [0, "0"],
    [null, "–"],
    ["NaN", "NaN"],
    [0.123456, "0.1235"],
    [12345.6, "12,346"],
    [0.00012, "1.20e-4"],
    [-2.5e9, "-2.50e9"],
  ] as const)("%s is shown", (value, text) => {
    expect(measured(value)).toBe(text);
  });
  test("units", () => {
    expect(duration(14.123)).toBe("14.1 ms");
    expect(duration(61_000)).toBe("1 min 1 s");
    expect(duration(26 * 3600_000)).toBe("1 d 2 h");
    expect(duration(NaN)).toBe("–");
    expect(bytes(1536)).toBe("1.5 KiB");
    expect(percent(0.5)).toBe("50.0 %");
    expect(metric("eval_accuracy", 0.97531)).toBe("97.53 %");
    expect(metric("eval_loss", "Infinity")).toBe("Infinity");
  });
  test("ticks are round and within", () => {
    expect(linearTicks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(logTicks(1e-4, 1e-1, 5)).toEqual([1e-4, 1e-3, 1e-2, 1e-1]);
    expect(logTicks(5e-4, 1e-2, 5)).toEqual([1e-3, 3e-3, 1e-2]);
    expect(numberAxis(1e-4, 1e-2, true, String).place(1e-3)).toBeCloseTo(0.5, 12);
    expect(numberAxis(3, 3, false, String).place(3)).toBeCloseTo(0.5, 12);
  });
  test("a place between two steps", () => {
    expect(between([0, 10, 20], [0, 1, 5], 15)).toBe(3);
    expect(between([0, 10], [0, 1], 20)).toBe(2);
    expect(between([4], [9], 7)).toBe(9);
  });
});

describe("search", () => {
  const known = ["schedule.lr", "optimizer.type", "eval_loss"];
  const some = trial({
    number: 7,
    state: "pruned",
    reason: "below the cutoff",
    parameters: { "schedule.lr": 0.01, "optimizer.type": "sgd" },
    metrics: { eval_loss: { last: 0.5, min: 0.25, max: "NaN" } },
  });
  test.each([
    ["", true],
    ["lr<0.02", true],
    ["lr<0.01", false],
    ["lr<=0.01 state=pruned", true],
    ["type=sgd", true],
    ["type!=sgd", false],
    ["eval_loss.min<0.3", true],
    ["eval_loss<0.3", false],
    ["number=7", true],
    ["cutoff", true],
    ["nowhere", false],
    ["constructor", false],
  ])("%s", (text, expected) => {
    const search = readSearch(text, known);
    expect(search.problem).toBe("");
    expect(search.matches(some)).toBe(expected);
  });
  test("says what it does not know", () => {
    expect(readSearch("momentum>1 __proto__=2", known).problem).toBe("nothing here is called momentum; nothing here is called __proto__");
  });
});

test("a specification becomes a line for each value", () => {
  const flat = flatten({ b: { c: [1, 2], d: null }, a: [{ x: true }] });
  expect([...flat]).toEqual([
    ["a[0].x", "true"],
    ["b.c", "[1, 2]"],
    ["b.d", "none"],
  ]);
});

test("children stand below their parents, and circles end", () => {
  const of = (number: number, parent: number | null) => trial({ number, parent: parent === null ? null : { trial: parent, budget: number } });
  const rows = family([of(0, null), of(1, null), of(2, 0), of(3, 2), of(4, 99), of(5, 6), of(6, 5)]);
  expect(rows.map((member) => [member.trial.number, member.parentRow])).toEqual([
    [0, null],
    [2, 0],
    [3, 1],
    [1, null],
    [4, null],
    [5, null],
    [6, 5],
  ]);
});

test("texts of others are cut where they have no room, and told how long they are", () => {
  expect(cut("short", 5)).toBe("short");
  expect(cut("x".repeat(1 << 20), 3)).toBe("xxx… (1,048,576 characters)");
  expect(parameter("y".repeat(9_999)).length).toBeLessThan(300);
});

test("the best of a metric is what its objective says, or its name", () => {
  expect(bestOf("eval_loss", [])).toBe("min");
  expect(bestOf("eval_accuracy", [])).toBe("max");
  expect(bestOf("eval_loss", [{ metric: "eval_loss", goal: "maximize" }])).toBe("max");
});

test("who wrote a line has the rank of the newest group that it was in", () => {
  const group = (generation: number, ...workers: string[]) => ({ generation, from_step: 0, at: 0, workers });
  const generations = [group(1, "00000000aaaaaaaa", "00000000bbbbbbbb"), group(2, "00000000bbbbbbbb", "00000000cccccccc")];
  const ranks = ranksOf({ generations, members: ["00000000cccccccc"], generation: 3 });
  const said = [...ranks].map(([id, { said }]) => `${id} ${said}`);
  expect(said).toEqual(["aaaaaaaa rank 0 of generation 1", "bbbbbbbb rank 0 of generation 2", "cccccccc rank 0 of generation 3"]);
});

test("stragglers are busier than the middle of their own group, whatever they wait", () => {
  const of = (id: string, run: string, rank: number | null, step_micros: number | null, outside_micros: number | null) =>
    ({ id, run, rank, step_micros, outside_micros, connected: true }) as Worker;
  const workers = [of("a", "x", 1, 30, 20), of("b", "x", 0, 30, 19), of("c", "x", 2, 30, 10), of("d", "y", 0, 90, 0), of("e", "x", 3, null, null)];
  expect([...stragglers(workers)]).toEqual(["c"]);
  expect(paces(workers).get("x")?.map(({ rank, busy, waiting }) => [rank, busy, waiting])).toEqual([[0, 11, 19], [1, 10, 20], [2, 20, 10]]);
});

test("the surface is the mean of what is near, and unknown where nothing is", () => {
  const { values, columns, rows } = surface([
    { x: 0.1, y: 0.1, value: 1 },
    { x: 0.1, y: 0.1, value: 0 },
  ]);
  const at = (x: number, y: number) => values[Math.floor(y * rows) * columns + Math.floor(x * columns)];
  expect(at(0.1, 0.1)).toBeCloseTo(0.5, 9);
  expect(at(0.9, 0.9)).toBeNaN();
});

test("phases are named by their shares of a step, the greatest first", () => {
  expect(shares({ data: 10, passes: 700, reduce: 200, agree: 5, update: 80, report: 5 })).toBe("passes 70 %, reduce 20 %, update 8 %, data 1 %");
  expect(shares({ data: 0, passes: 0, reduce: 0, agree: 0, update: 0, report: 0 })).toBe("");
});

describe("histograms beside each other", () => {
  const histogram = (low: number, high: number, counts: number[]) => ({ low, high, counts, min: low, max: high, mean: 0, std: 1, zeros: 0, non_finite: 0 });

  test("keep every value, whatever their edges", () => {
    const { low, high, columns, most } = heat([histogram(-1, 1, [1, 2, 3, 4]), histogram(0, 3, [5, 0, 1]), histogram(0.4, 0.41, [7])], 16);
    expect([low, high]).toEqual([-1, 3]);
    for (const column of columns) expect(column.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
    expect(most).toBeCloseTo(1, 12);
    expect([...(columns[0] ?? [])].slice(0, 8).map((share) => Number(share.toFixed(3)))).toEqual([0.05, 0.05, 0.1, 0.1, 0.15, 0.15, 0.2, 0.2]);
    expect(columns[2]?.[5]).toBe(1);
  });

  test("need no values", () => {
    const { columns, most } = heat([histogram(-0.5, 0.5, [0, 0])], 4);
    expect([most, columns.map((column) => [...column])]).toEqual([0, [[0, 0, 0, 0]]]);
    expect(heat([], 4).columns).toEqual([]);
  });
});
