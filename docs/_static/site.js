// What CSS alone cannot do: labels for the cells of tables on a phone, and places where long names may break.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.docutils")) {
    const heads = [...table.tHead?.rows[0].cells ?? []].map((head) => head.textContent);
    // With two columns, the first one names the second one.
    if (heads.length < 3) continue;
    for (const row of table.tBodies[0].rows) {
      for (const [index, cell] of [...row.cells].entries()) {
        if (index && cell.textContent.trim()) cell.dataset.label = heads[index];
      }
    }
  }
  for (const name of document.querySelectorAll(":is(.sig, code) .pre, .highlight .nn")) {
    // A short one in a text fits on a line of its own.
    if (name.closest(".sig") || name.textContent.length > 30) name.innerHTML = name.innerHTML.replace(/[._/]/g, "$&<wbr>");
  }
  // The theme calls the names of the groups in the sidebar headings, without a level.
  for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.ariaLevel = 2;
});
