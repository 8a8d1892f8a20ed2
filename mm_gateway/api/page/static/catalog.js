// Which models there are, asked again while somebody looks.
import { json } from "./api.js";

const MAX_AGE_MS = 5000;

export class Catalog {
  constructor() {
    this.models = [];
    this.followers = [];
    this.askedAt = -Infinity;
  }

  /** follower: called with the models and the ids that panes begin with, now and after each change of the list. */
  follow(follower) {
    this.followers.push(follower);
    follower(this.models, this.preferred());
  }

  /** The list, asked for where it is older than MAX_AGE_MS: it counts among the requests of the log. */
  async refreshed() {
    return performance.now() - this.askedAt < MAX_AGE_MS ? this.models : this.refresh();
  }

  /** Ask for the list; errors as of the request. */
  async refresh() {
    const { data } = await json("/v1/models");
    this.askedAt = performance.now();
    // Aliases come after all names, and are the same models.
    const models = data.filter(({ id, root }) => id === root);
    const changed = models.map(({ id }) => id).join("\n") !== this.models.map(({ id }) => id).join("\n");
    this.models = models;
    if (changed) for (const follower of this.followers) follower(models, this.preferred());
    return models;
  }

  /** First what is in memory and not made up, then by the order of the list. */
  preferred() {
    const rank = ({ backend, state }) => (backend === "mock" ? 2 : ["ready", "busy"].includes(state) ? 0 : 1);
    const ranked = this.models.map((model, index) => [rank(model), index, model.id]).sort(([a, i], [b, j]) => a - b || i - j);
    return ranked.map(([, , id]) => id);
  }
}
