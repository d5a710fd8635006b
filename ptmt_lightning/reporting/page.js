"use strict"
// Sorts and filters the table of runs, and compares two of them by settings and by label.
const get = id => document.getElementById(id)
const {runs, labels} = JSON.parse(get("data").textContent)
const body = get("all").tBodies[0]
const headings = [...get("all").tHead.rows[0].cells]

headings.forEach((heading, column) => heading.firstChild.addEventListener("click", () => {
  const order = heading.ariaSort === "descending" ? "ascending" : "descending"
  headings.forEach(other => other.removeAttribute("aria-sort"))
  heading.ariaSort = order
  const sign = order === "ascending" ? 1 : -1
  const value = row => row.cells[column].textContent
  const compare = (a, b) => {
    if (a === "-" || b === "-") return (a === "-") - (b === "-") // what is not known comes last
    const [x, y] = [Number(a), Number(b)]
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y)
  }
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))))
}))

get("words").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\s+/)
  let shown = 0
  for (const row of body.rows) {
    row.hidden = !words.every(word => row.dataset.words.includes(word))
    shown += !row.hidden
  }
  get("shown").textContent = `${shown} of ${runs.length} runs`
})

function table(caption, headings, rows) {
  const frame = document.createElement("div")
  frame.tabIndex = 0
  frame.role = "region"
  frame.ariaLabel = caption
  const made = frame.appendChild(document.createElement("table"))
  made.createCaption().textContent = caption
  const head = made.createTHead().insertRow()
  const add = (row, text, scope) => {
    const cell = row.appendChild(document.createElement(scope ? "th" : "td"))
    if (scope) cell.scope = scope
    cell.textContent = text
  }
  headings.forEach(text => add(head, text, "col"))
  const lines = made.createTBody()
  for (const [name, ...values] of rows) {
    const row = lines.insertRow()
    add(row, name, "row")
    values.forEach(value => add(row, value))
  }
  return frame
}

function compare() {
  const [first, second] = ["first", "second"].map(which => runs[get(which).value])
  const settings = Object.entries(first.settings)
    .map(([key, value]) => [key, value, second.settings[key]])
    .filter(([, value, other]) => value !== other)
  const other = new Map(labels[second.labels].map((label, index) => [label, second.label_f1[index]]))
  const shared = labels[first.labels]
    .map((label, index) => [label, first.label_f1[index], other.get(label)])
    .filter(([, , f1]) => f1 !== undefined)
    .map(([label, one, two]) => [label, one, two, Number((two - one).toFixed(4))])
    .sort((a, b) => Math.abs(b[3]) - Math.abs(a[3]))
  const names = ["first", "second"]
  get("compared").replaceChildren(
    table("What was set differently", ["setting", ...names], settings),
    table("F1 of each label on test, the largest differences first", ["label", ...names, "difference"], shared),
  )
}
for (const which of ["first", "second"]) get(which).addEventListener("change", compare)
compare()
