import { useEffect, useRef } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { AttentionLayer, AttentionPattern, InspectedSample, Inspection, Run } from "../../api/types";
import { count, cut, NAME_MAX, percent } from "../../lib/format";
import { rampRgb } from "../../lib/ramp";
import { useParameter } from "../../state/address";
import { useTheme } from "../../state/theme";
import { Choice, Empty, Loading, Panel, Problem } from "../../ui/basic";

/** The side of a pattern on the page, in pixels, at least; cells are squares of whole pixels. */
const SIDE = 132;

/** What the heads of a layer look at on a sample, at a step. */
export function AttentionPanel({ run, step }: { run: Run; step: number }) {
  const path = `${api("runs", run.name, `/inspections/${step}`)}?part=attention`;
  const { data: newest, error, reload } = useResource<Inspection>(path);
  // While another step is on its way, the one before stays.
  const before = useRef<Inspection | null>(null);
  if (newest) before.current = newest;
  const data = newest ?? (error ? null : before.current);
  const [sampleWanted, setSample] = useParameter("sample", "0");
  const [layerWanted, setLayer] = useParameter("layer");
  if (!data) return <Panel title="Attention">{error ? <Problem error={error} retry={reload} /> : <Loading />}</Panel>;
  const { attention } = data;
  if (!attention) {
    return (
      <Panel title="Attention">
        <Empty>
          Not looked at: the job says <code>attention: false</code>, or its model has no attention.
        </Empty>
      </Panel>
    );
  }
  const number = Math.min(attention.samples.length - 1, Math.max(0, Number(sampleWanted) || 0));
  const sample = attention.samples[number];
  const layer = attention.layers.find(({ name }) => name === layerWanted) ?? attention.layers[0];
  if (!sample || !layer) return null;
  const tools = (
    <>
      <Choice
        label="Sample"
        value={String(number)}
        options={attention.samples.map(({ label }, i) => ({ value: String(i), label: `${i}, class ${label}` }))}
        set={setSample}
      />
      <Choice label="Layer" value={layer.name} options={attention.layers.map(({ name }) => ({ value: name, label: name }))} set={setLayer} />
    </>
  );
  return (
    <Panel title="Attention" note={`step ${count(data.step)}, generation ${data.generation}`} tools={tools}>
      <div class="heads">
        <figure>
          <Picture sample={sample} />
          <figcaption>
            Held-out sample {number}
            <br />
            class {sample.label}
          </figcaption>
        </figure>
        {heads(layer, number).map((pattern, head) => (
          <figure key={head}>
            <Pattern pattern={pattern} layer={layer} label={`Head ${head} of ${cut(layer.name, NAME_MAX)} on sample ${number}`} />
            <figcaption>
              Head {head}
              <br />
              up to {percent(pattern.peak)}
            </figcaption>
          </figure>
        ))}
      </div>
      <p class="ramp-note">
        A row is a token that looks, a column one that is looked at; a row adds up to 100 %, and the brightest cell of a head is
        its greatest. {layer.block > 1 && `${layer.block} neighbouring tokens of ${layer.queries} stand together. `}
        {hasClassToken(run) && "The first token is the class token; the others are the patches of the image, row by row."}
      </p>
    </Panel>
  );
}

function heads(layer: AttentionLayer, sample: number): AttentionPattern[] {
  return layer.patterns.slice(sample * layer.heads, (sample + 1) * layer.heads);
}

function hasClassToken(run: Run): boolean {
  const spec = run.spec as { model?: { pool?: unknown } } | null;
  return spec?.model?.pool === "class_token";
}

function Pattern({ pattern, layer, label }: { pattern: AttentionPattern; layer: AttentionLayer; label: string }) {
  const { dark } = useTheme();
  const canvas = useRef<HTMLCanvasElement>(null);
  const { rows, columns } = layer;
  useEffect(() => {
    paint(canvas.current, columns, rows, (i) => [...rampRgb((pattern.cells[i] ?? 0) / 65_535, dark), 255]);
  }, [pattern, dark]);
  return <canvas ref={canvas} class="cells" role="img" aria-label={`${label}: ${rows} × ${columns}, greatest ${percent(pattern.peak)}`} />;
}

function Picture({ sample }: { sample: InspectedSample }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { width, height, channels, pixels } = sample;
  useEffect(() => {
    const at = (i: number, channel: number) => pixels[i * channels + channel] ?? 0;
    paint(canvas.current, width, height, (i) => {
      const opacity = channels % 2 === 0 ? at(i, channels - 1) : 255;
      return channels < 3 ? [at(i, 0), at(i, 0), at(i, 0), opacity] : [at(i, 0), at(i, 1), at(i, 2), opacity];
    });
  }, [sample]);
  return <canvas ref={canvas} class="cells" role="img" aria-label={`The input: ${width} × ${height} pixels of class ${sample.label}`} />;
}

/** Cells as pixels of a canvas, which the browser draws larger without smoothing. */
function paint(canvas: HTMLCanvasElement | null, width: number, height: number, rgba: (index: number) => number[]): void {
  const context = canvas?.getContext("2d");
  if (!canvas || !context) return;
  [canvas.width, canvas.height] = [width, height];
  const zoom = Math.max(1, Math.ceil(SIDE / Math.max(width, height)));
  canvas.style.width = `${width * zoom}px`;
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set(rgba(i), i * 4);
  context.putImageData(image, 0, 0);
}
