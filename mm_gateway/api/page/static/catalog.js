// Which models there are, asked again while somebody looks.
import { json } from "./api.js";

export class Catalog {
  constructor() {
    this.models = [];
    this.followers = [];
  }

  /** follower: called with the models and the ids that panes begin with, now and after each change of the list. */
  follow(follower) {
    this.followers.push(follower);
    follower(this.models, this.preferred());
  }

  /** Ask for the list; errors as of the request. */
  async refresh() {
    const { data } = await json("/v1/models");
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
