"""`headwater up`: the Prefect and MLflow servers of this workspace, and a worker."""

from __future__ import annotations

from flows.output import console
from flows.workspace.extras import UI, how_to_install, lacking
from tasks.contracts.errors import InputError


def up() -> None:
    """Start the Prefect and MLflow servers and a worker with the deployments of prefect.yaml; Ctrl-C ends them.

    Example: headwater up
    """
    from flows.services.embedded import embedded_services

    if lacks := lacking(UI):
        raise InputError("what this starts is not installed", found=", ".join(lacks), fix=how_to_install(UI))
    console.print("starting Prefect, MLflow and a worker …")
    with embedded_services() as running:
        console.print(
            f"Prefect  {running.addresses.prefect_link}\n"
            f"MLflow   {running.addresses.mlflow_link}\n"
            "These addresses hold a secret that opens both in your browser. Ctrl-C ends them all.",
            soft_wrap=True,
        )
        running.wait()
