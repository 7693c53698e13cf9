// The map: layers, and pan and zoom by mouse, touch, keys and buttons, all by changing what the SVG shows of itself.
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("map-data").textContent);
  var box = document.querySelector(".map"), svg = box.querySelector("svg"), select = box.querySelector("#map-layer");
  var pad = Math.max(data.size[0], data.size[1]) * 0.03;
  var whole = [-pad, -pad, data.size[0] + 2 * pad, data.size[1] + 2 * pad], view = whole.slice();
  var smallest = Math.min.apply(null, data.places.map(function (one) { return one[3]; })) / 12;

  // the first layer stands in the page already, so that it shows without scripts
  var first = data.layers[select.options[0].value];
  first.tiles = {};
  svg.querySelectorAll("g.place").forEach(function (group) {
    var url = group.querySelector("image").getAttribute("href");
    if (url) first.tiles[group.dataset.id] = url;
  });

  function show() {
    svg.setAttribute("viewBox", view.join(" "));
    var size = 12 * Math.max(view[2] / svg.clientWidth, view[3] / svg.clientHeight);
    svg.querySelectorAll("text").forEach(function (text) { text.setAttribute("font-size", size); });
  }
  function zoom(factor, x, y) {
    var width = Math.min(whole[2] * 1.5, Math.max(smallest, view[2] * factor)), by = width / view[2];
    view = [x - (x - view[0]) * by, y - (y - view[1]) * by, width, view[3] * by];
    show();
  }
  function middle(factor) { zoom(factor, view[0] + view[2] / 2, view[1] + view[3] / 2); }
  function pan(right, down) { view[0] += right * view[2]; view[1] += down * view[3]; show(); }
  function reset() { view = whole.slice(); show(); }
  function go(place) { view = [place[1] - place[3] * 0.08, place[2] - place[3] * 0.08, place[3] * 1.16, place[3] * 1.16]; show(); }
  function at(event) {
    var point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [point.x, point.y];
  }
  function layer(id) {
    var found = data.layers[id];
    svg.querySelectorAll("g.place").forEach(function (group) {
      var image = group.querySelector("image"), url = found.tiles[group.dataset.id];
      // where a layer has nothing, the satellite image shows faintly what is there
      group.classList.toggle("faint", !url);
      url = url || data.layers.image.tiles[group.dataset.id];
      if (url) image.setAttribute("href", url); else image.removeAttribute("href");
    });
    svg.classList.toggle("smooth", found.smooth);
    box.querySelectorAll("[data-layer]").forEach(function (one) { one.hidden = one.dataset.layer !== id; });
    select.value = id;
  }

  select.addEventListener("change", function () { layer(select.value); });
  box.querySelector("#map-place").addEventListener("change", function (event) {
    var found = data.places.find(function (one) { return one[0] === event.target.value; });
    if (found) go(found); else reset();
  });
  box.querySelectorAll("button[data-do]").forEach(function (button) {
    button.addEventListener("click", function () {
      ({ in: function () { middle(0.6); }, out: function () { middle(1 / 0.6); }, all: reset })[button.dataset.do]();
    });
  });
  svg.addEventListener("keydown", function (event) {
    var step = 0.15, keys = {
      ArrowLeft: function () { pan(-step, 0); }, ArrowRight: function () { pan(step, 0); },
      ArrowUp: function () { pan(0, -step); }, ArrowDown: function () { pan(0, step); },
      "+": function () { middle(0.6); }, "=": function () { middle(0.6); }, "-": function () { middle(1 / 0.6); }, "0": reset
    };
    if (keys[event.key]) { keys[event.key](); event.preventDefault(); return; }
    var number = /^[1-9]$/.test(event.key) ? select.options[event.key - 1] : null;
    if (number) { layer(number.value); event.preventDefault(); }
  });
  svg.addEventListener("wheel", function (event) {
    if (!event.ctrlKey && document.activeElement !== svg) return; // the page scrolls until the map was clicked
    var point = at(event);
    zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, point[0], point[1]);
    event.preventDefault();
  }, { passive: false });
  svg.addEventListener("dblclick", function (event) { var point = at(event); zoom(0.5, point[0], point[1]); });

  var held = new Map(), apart = 0;
  svg.addEventListener("pointerdown", function (event) {
    held.set(event.pointerId, [event.clientX, event.clientY]);
    svg.focus({ preventScroll: true });
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", function (event) {
    var before = held.get(event.pointerId);
    if (!before) return;
    var scale = svg.getScreenCTM().a;
    held.set(event.pointerId, [event.clientX, event.clientY]);
    if (held.size === 1) {
      view[0] -= (event.clientX - before[0]) / scale;
      view[1] -= (event.clientY - before[1]) / scale;
      show();
    } else if (held.size === 2) {
      var two = Array.from(held.values()), now = Math.hypot(two[0][0] - two[1][0], two[0][1] - two[1][1]);
      var point = at({ clientX: (two[0][0] + two[1][0]) / 2, clientY: (two[0][1] + two[1][1]) / 2 });
      if (apart) zoom(apart / now, point[0], point[1]);
      apart = now;
    }
  });
  ["pointerup", "pointercancel"].forEach(function (name) {
    svg.addEventListener(name, function (event) { held.delete(event.pointerId); apart = 0; });
  });
  addEventListener("resize", show);
  box.querySelector(".bar").hidden = false;
  layer(select.value);
  reset();
})();
