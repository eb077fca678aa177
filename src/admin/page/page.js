"use strict";
(() => {
  const link = document.getElementById("link");
  const say = (text, lost) => {
    if (link.textContent !== text) link.textContent = text;
    link.classList.toggle("lost", lost);
  };
  let source;
  const open = () => {
    source = new EventSource("events");
    source.onopen = () => say("live", false);
    source.onmessage = (event) => {
      for (const [id, html] of JSON.parse(event.data)) {
        const part = document.getElementById(id);
        if (part) part.innerHTML = html;
      }
    };
    source.onerror = () => {
      say("not connected; what is shown grows old", true);
      // A refusal ends it for good: ask again later.
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 5000);
    };
  };
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source.close();
    else if (source.readyState === EventSource.CLOSED) open();
  });
  open();
})();
