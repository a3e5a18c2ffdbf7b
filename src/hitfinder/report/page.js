
(() => {
  "use strict";
  const list = document.getElementById("list");
  if (!list) return;
  const body = list.tBodies[0];
  const rows = Array.from(body.rows);
  const search = document.getElementById("search");
  const choose = document.getElementById("sort");
  const shown = document.getElementById("shown");
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const number = (text) => (text === "" ? null : Number(text));
  const actions = ["scale", "test", "stop"];

  // Rows stand in order of rank, so a row's place is its rank, and ties keep that order.
  const facts = new Map(rows.map((row, place) => [row, {
    place,
    action: row.className,
    rank: place,
    name: plain(row.cells[1].firstElementChild.textContent),
    probability: number(row.dataset.p),
    value: number(row.dataset.v),
    tier: number(row.dataset.t ?? ""),
    text: plain([1, 5, 6].map((cell) => row.cells[cell]?.textContent ?? "").join(" ")),
  }]));
  const descendingFirst = new Set(["probability", "value"]);
  let action = "";
  let sortBy = "rank";
  let direction = 1;

  function compare(a, b) {
    const left = facts.get(a);
    const right = facts.get(b);
    let x = left[sortBy];
    let y = right[sortBy];
    if (sortBy === "action") {
      x = actions.indexOf(x);
      y = actions.indexOf(y);
    }
    if (x === null || y === null) {  // what is not known comes last either way
      return (x === null) - (y === null) || left.place - right.place;
    }
    const order = typeof x === "string" ? x.localeCompare(y, document.documentElement.lang) : x - y;
    return order * direction || left.place - right.place;
  }

  function filter() {
    const wanted = plain(search.value).split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const fact = facts.get(row);
      const fits = (!action || fact.action === action) && wanted.every((word) => fact.text.includes(word));
      row.hidden = !fits;
      count += fits;
    }
    const marks = { "{shown}": count.toLocaleString("en"), "{total}": rows.length.toLocaleString("en") };
    shown.textContent = shown.dataset.text.replace(/\{\w+\}/g, (mark) => marks[mark]);
    list.hidden = count === 0;
    document.getElementById("nothing").hidden = count > 0;
  }

  function sort(name, way) {
    sortBy = name;
    direction = way;
    const part = document.createDocumentFragment();
    for (const row of rows.slice().sort(compare)) part.append(row);
    body.append(part);
    for (const head of list.tHead.rows[0].cells) {
      if (head.dataset.sort === sortBy) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    choose.value = sortBy;
  }

  for (const head of list.tHead.rows[0].cells) {
    const name = head.dataset.sort;
    if (!name) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.dataset.name = button.textContent;  // for print
    head.replaceChildren(button);
    const usual = descendingFirst.has(name) ? -1 : 1;
    button.addEventListener("click", () => sort(name, sortBy === name ? -direction : usual));
    choose.append(new Option(button.textContent, name));
  }
  choose.addEventListener("change", () => sort(choose.value, descendingFirst.has(choose.value) ? -1 : 1));
  search.addEventListener("input", filter);
  const buttons = document.querySelectorAll("#tools [data-action]");
  for (const button of buttons) {
    button.addEventListener("click", () => {
      action = button.dataset.action;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      filter();
    });
  }
  filter();
  document.getElementById("tools").hidden = false;
  document.documentElement.dataset.ready = "true";
})();
