// Keep the runs that have all of the words.
const words = cb_obj.value_input.toLowerCase().split(/\s+/)
kept.booleans = source.data.words.map(text => words.every(word => text.includes(word)))
source.change.emit()
