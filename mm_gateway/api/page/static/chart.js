// Lines over the last minutes, drawn as SVG.
import { h } from "./dom.js";
import { t } from "./words.js";

const WIDTH = 480;
const HEIGHT = 150;
const LEFT = 44;
const BOTTOM = 20;

/**
 * A figure. series: [{name, points: [[time, value]], dots}], at most three; times are Unix seconds, values >= 0. dots: single points, no line.
 * from, to: the span of time that is shown.
 */
export function chart(title, series, from, to) {
  const shown = series.map((one) => ({ ...one, points: one.points.filter(([time]) => time >= from) }));
  const top = niceTop(Math.max(0, ...shown.flatMap(({ points }) => points.map(([, value]) => value))));
  const x = (time) => LEFT + ((time - from) / (to - from)) * (WIDTH - LEFT - 6);
  const y = (value) => 8 + (1 - value / top) * (HEIGHT - BOTTOM - 8);
  const latest = shown.map(({ name, points }) => (points.length ? `${name ? `${name}: ` : ""}${number(points.at(-1)[1])}` : null)).filter(Boolean);
  const grid = [0, 0.5, 1].map((share) => [
    h("line", { class: "grid", x1: LEFT, x2: WIDTH - 6, y1: y(top * share), y2: y(top * share) }),
    h("text", { x: LEFT - 6, y: y(top * share) + 4, "text-anchor": "end" }, number(top * share)),
  ]);
  const drawn = shown.map(({ points, dots }, index) =>
    dots
      ? points.map(([time, value]) => h("rect", { class: `series-${index} dot`, x: x(time) - 2.5, y: y(value) - 2.5, width: 5, height: 5 }))
      : h("polyline", { class: `series-${index}`, points: points.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }),
  );
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("b", {}, title), h("span", {}, latest.join(" · ") || t("nothingYet"))),
    h(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, ${t("lastMinutes")}: ${latest.join(", ") || t("nothingYet")}` },
      grid,
      h("text", { x: LEFT, y: HEIGHT - 4 }, clock(from)),
      h("text", { x: WIDTH - 6, y: HEIGHT - 4, "text-anchor": "end" }, clock(to)),
      drawn,
    ),
  );
}

/** 1, 2 or 5 times a power of ten. */
function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

function number(value) {
  return value.toLocaleString(undefined, { maximumSignificantDigits: 3 });
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString();
}
