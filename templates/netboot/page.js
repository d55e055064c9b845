// Shows /v1/state. All of it came from machines on the network, so it is only ever set as text.
"use strict";

const EVERY = 2000; // milliseconds
const byId = (id) => document.getElementById(id);
const shown = new Map(); // name → its table row

function span(age) {
  if (age === null) return "–";
  if (age < 60) return `${Math.round(age)} s`;
  if (age < 3600) return `${Math.round(age / 60)} min`;
  return age < 86400 ? `${Math.round(age / 3600)} h` : `${Math.round(age / 86400)} d`;
}

function size(bytes) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (bytes < 1024) return `${bytes.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
    bytes /= 1024;
  }
  return `${bytes.toFixed(1)} GiB`;
}

function line(cells) {
  const row = document.createElement("tr");
  for (let count = 0; count < cells; count += 1) row.append(document.createElement("td"));
  return row;
}

function setText(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

function setProgress(cell, percent) {
  if (percent === null) { setText(cell, ""); return; }
  let bar = cell.querySelector("progress");
  if (!bar) {
    cell.textContent = "";
    bar = document.createElement("progress");
    bar.max = 100;
    cell.append(bar, document.createElement("span"));
  }
  bar.value = percent;
  setText(cell.lastChild, `${percent} %`);
}

function draw(data) {
  document.title = setTitle(data);
  setText(byId("title"), data.cluster);
  const counts = Object.entries(data.counts).filter(([, count]) => count).map(([health, count]) => `${count} ${health}`);
  setText(byId("counts"), counts.join(", "));
  const body = byId("rows");
  const names = new Set();
  let place = body.firstChild;
  for (const node of data.rows) {
    names.add(node.name);
    let row = shown.get(node.name);
    if (!row) { row = line(7); shown.set(node.name, row); }
    row.className = node.health;
    const cells = row.children;
    setText(cells[0], node.name);
    setText(cells[1], node.health);
    setText(cells[2], node.phase);
    setProgress(cells[3], node.percent);
    setText(cells[4], node.rate ? `${size(node.rate)}/s` : "");
    setText(cells[5], node.note || node.line);
    setText(cells[6], span(node.age));
    if (row === place) place = place.nextSibling;
    else body.insertBefore(row, place);
  }
  for (const [name, row] of shown) if (!names.has(name)) { row.remove(); shown.delete(name); }
  const others = data.strangers.map((one) => {
    const row = line(5);
    [one.mac, one.uuid, one.serial, one.address, span(one.age)].forEach((text, at) => setText(row.children[at], text));
    return row;
  });
  byId("others").replaceChildren(...others);
  byId("strangers").hidden = others.length === 0;
}

function setTitle(data) {
  const bad = data.counts.failed + data.counts.stuck;
  return bad ? `(${bad}!) ${data.cluster}` : data.cluster;
}

let last = Date.now();
async function look() {
  try {
    const reply = await fetch("v1/state", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
    draw(await reply.json());
    last = Date.now();
    byId("stale").hidden = true;
  } catch (error) {
    setText(byId("stale"), `No news for ${span((Date.now() - last) / 1000)}: ${error.message}. What is shown is old.`);
    byId("stale").hidden = false;
  }
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
  setTimeout(look, EVERY);
}
look();
