"use strict";
(() => {
  const sorter = new Intl.Collator("en", { numeric: true });

  /* The key by which a cell is sorted: the number in data-value, otherwise its text. */
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
  };
  const numberOf = (text) => {
    if (text === "inf" || text === "-inf") return text === "inf" ? Infinity : -Infinity;
    return text === "" ? NaN : Number(text);
  };

  /* Rows in rising or falling order; empty cells and cells without a number always come last. */
  const ordered = (rows, column, rising) => {
    const numeric = rows.some((row) => row.cells[column].dataset.value !== undefined);
    const keyed = rows.map((row) => {
      const text = keyOf(row, column);
      const key = numeric ? numberOf(text) : text;
      return { row, key, missing: numeric ? Number.isNaN(key) : key === "" };
    });
    const compare = (a, b) => {
      if (a.missing || b.missing) return Number(a.missing) - Number(b.missing);
      const order = numeric ? (a.key > b.key) - (a.key < b.key) : sorter.compare(a.key, b.key);
      return rising ? order : -order;
    };
    return keyed.sort(compare).map((entry) => entry.row);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const headings = Array.from(table.tHead.rows[0].cells);
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const rising = heading.getAttribute("aria-sort") !== "ascending";
        for (const other of headings) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
        body.append(...ordered(Array.from(body.rows), column, rising));
      });
    });
  }

  /* Sections that are folded on the screen are printed in full. */
  window.addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });
})();
