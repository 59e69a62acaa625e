import { useEffect } from "preact/hooks";

import { cut, NAME_MAX } from "./lib/format";
import { routeOf, useAddress } from "./state/address";
import { Empty } from "./ui/basic";
import { Frame } from "./ui/frame";
import { ClusterView } from "./views/cluster/cluster";
import { CompareView } from "./views/run/compare";
import { RunView } from "./views/run/run";
import { SweepPage } from "./views/sweep/sweep";

/** The page: what the address names, in its frame. */
export function App() {
  const { path } = useAddress();
  const route = routeOf(path);
  const name = "name" in route ? route.name : route.view === "compare" ? "Compare" : "Cluster";
  useEffect(() => {
    document.title = `${cut(name, NAME_MAX)} – Phalanx`;
  }, [name]);
  return <Frame>{view(route)}</Frame>;
}

function view(route: ReturnType<typeof routeOf>) {
  switch (route.view) {
    case "cluster":
      return <ClusterView />;
    case "run":
      return <RunView key={route.name} name={route.name} />;
    case "sweep":
      return <SweepPage key={route.name} name={route.name} />;
    case "compare":
      return <CompareView />;
    case "unknown":
      return (
        <Empty>
          There is no such page. <a href="/">Go to the cluster</a>.
        </Empty>
      );
  }
}
