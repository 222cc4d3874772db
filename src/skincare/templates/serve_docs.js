// Shows openapi.json as a page: operations, parameters, bodies and responses.
"use strict";

function element(name, text, children = []) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function table(headings, rows) {
  const head = element("tr", "", headings.map((text) => {
    const cell = element("th", text);
    cell.scope = "col";
    return cell;
  }));
  const body = rows.map((cells) => element("tr", "", cells.map((text) => element("td", text))));
  return element("table", "", [element("thead", "", [head]), element("tbody", "", body)]);
}

function operation(path, method, described) {
  const parts = [element("h2", `${method.toUpperCase()} ${path}`), element("p", described.summary || "")];
  if (described.parameters?.length) {
    parts.push(element("h3", "Parameters"), table(["Name", "Type", "Meaning"], described.parameters.map((one) =>
      [one.name, `${one.schema.type}, default ${one.schema.default}`, one.description || ""])));
  }
  if (described.requestBody) {
    parts.push(element("h3", "Body"), ...Object.entries(described.requestBody.content).map(([type, content]) =>
      element("pre", `${type}\n${JSON.stringify(content.schema, null, 2)}`)));
  }
  parts.push(element("h3", "Responses"), table(["Status", "Meaning"],
    Object.entries(described.responses).map(([status, one]) => [status, one.description])));
  return element("section", "", parts);
}

async function show() {
  const described = await (await fetch("openapi.json")).json();
  const shown = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => operation(path, method, one)));
  const schemas = Object.entries(described.components.schemas).map(([name, schema]) => element("section", "", [
    element("h3", name), element("p", schema.description || ""),
    table(["Field", "Type", "Meaning"], Object.entries(schema.properties || {}).map(([field, one]) =>
      [field, one.type || (one.anyOf || []).map((kind) => kind.type).join(" or ") || "object", one.description || ""])),
  ]));
  document.getElementById("operations").replaceChildren(...shown, element("h2", "Objects"), ...schemas);
}

const origin = new URL(".", location.href).href;
document.getElementById("example").textContent = [
  `curl -F images=@photo.jpg ${origin}predict`,
  `curl -F images=@a.jpg -F images=@b.jpg "${origin}predict?detail=true&top=5"`,
  `curl -H "Content-Type: image/jpeg" --data-binary @photo.jpg ${origin}predict`,
].join("\n");
show();
