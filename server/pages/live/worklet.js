// Plays what the page hands over, sample by sample: a ring of two seconds that starts once a little has gathered, so
// that the network may stutter, and that catches up when too much has.
"use strict";

const SECONDS = 2;
const GATHER = 0.15;
const TOO_MUCH = 1.0;

class Ring extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ring = new Float32Array(Math.round(SECONDS * sampleRate));
    this.read = 0;
    this.size = 0;
    this.playing = false;
    this.port.onmessage = (message) => this.add(message.data);
  }

  add(samples) {
    const ring = this.ring;
    for (let i = 0; i < samples.length; i++) {
      ring[(this.read + this.size + i) % ring.length] = samples[i];
    }
    this.size += samples.length;
    if (this.size > TOO_MUCH * sampleRate) {
      const skip = this.size - Math.round(GATHER * sampleRate);
      this.read = (this.read + skip) % ring.length;
      this.size -= skip;
    }
    if (this.size >= GATHER * sampleRate) this.playing = true;
  }

  process(inputs, outputs) {
    const out = outputs[0][0];
    const ready = this.playing ? Math.min(out.length, this.size) : 0;
    for (let i = 0; i < ready; i++) {
      out[i] = this.ring[(this.read + i) % this.ring.length];
    }
    this.read = (this.read + ready) % this.ring.length;
    this.size -= ready;
    if (this.playing && ready < out.length) this.playing = false;
    return true;
  }
}

registerProcessor("ring", Ring);
