// Tables sort by a click or a key on a column's title and filter by words; without scripts they are plain tables.
(function () {
  "use strict";
  document.querySelectorAll(".table").forEach(function (box) {
    var table = box.querySelector("table"), body = table.tBodies[0], rows = Array.from(body.rows);
    if (rows.length > 1) {
      table.querySelectorAll("tr.heads th").forEach(function (head, column) {
        var button = document.createElement("button");
        button.type = "button";
        button.textContent = head.textContent;
        head.replaceChildren(button);
        button.addEventListener("click", function () {
          var down = head.getAttribute("aria-sort") === "ascending";
          table.querySelectorAll("th[aria-sort]").forEach(function (other) { other.removeAttribute("aria-sort"); });
          head.setAttribute("aria-sort", down ? "descending" : "ascending");
          var numbers = head.classList.contains("n");
          rows.sort(function (one, two) {
            var a = one.cells[column].dataset.key, b = two.cells[column].dataset.key;
            if (a === "" || b === "") return (a === "") - (b === ""); // undefined goes last, either way
            var order = numbers && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b, "en", { numeric: true });
            return down ? -order : order;
          });
          rows.forEach(function (row) { body.appendChild(row); });
        });
      });
    }
    var label = box.querySelector(".filter");
    if (!label) return;
    label.hidden = false;
    var status = box.querySelector("[role=status]");
    label.querySelector("input").addEventListener("input", function (event) {
      var words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
      rows.forEach(function (row) {
        var text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
        shown += row.hidden ? 0 : 1;
      });
      status.textContent = words.length ? shown + " of " + rows.length + " rows" : "";
    });
  });
  addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (one) { one.open = true; });
  });
})();
