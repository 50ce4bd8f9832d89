"""Where programs come from: TorchDynamo and torch.export, both read by one importer."""

if __name__ != "rewright.frontends":
    raise ImportError("import rewright.frontends, not frontends")
