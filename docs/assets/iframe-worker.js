// Search in pages opened as files: browsers start no Worker from file:. The script runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inner = new Promise((done) => {
        const script = frame.contentDocument.createElement("script");
        script.src = new URL(address, location);
        script.onload = () => done(inner);
        frame.contentDocument.body.appendChild(script);
      });
    }
    postMessage(data) {
      this.inner.then((inner) => inner.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
