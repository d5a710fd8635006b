// The first two runs that are picked: what was set differently, and F1 of each label that both know.
const [first, second] = source.selected.indices
const escaped = text => text.replace(/[&<>"]/g, character => `&#${character.charCodeAt(0)};`)
const empty = {label: [], first: [], second: [], difference: []}
if (second === undefined) {
  differences.text = "Pick two runs."
  labels.data = empty
  return
}
const {run, settings, label_f1, labels: list} = source.data
const lines = Object.entries(settings[first])
  .map(([key, value]) => [key, value, settings[second][key]])
  .filter(([, value, other]) => value !== other)
lines.unshift(["", run[first], run[second]])
const cells = line => line.map(text => `<td style="padding: 2px 10px">${escaped(text)}</td>`).join("")
differences.text = `<table>${lines.map(line => `<tr>${cells(line)}</tr>`).join("")}</table>`
const other = new Map(lists[list[second]].map((label, index) => [label, label_f1[second][index]]))
const found = empty
lists[list[first]].forEach((label, index) => {
  if (other.has(label)) {
    found.label.push(label)
    found.first.push(label_f1[first][index])
    found.second.push(other.get(label))
    found.difference.push(Number((other.get(label) - label_f1[first][index]).toFixed(4)))
  }
})
labels.data = found
