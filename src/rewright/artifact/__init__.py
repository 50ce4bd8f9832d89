"""Programs in files: one zip of JSON, IR text, safetensors weights and engines; never code.

    program.save("model.rw")
    program = rewright.load("model.rw")

``docs/ARTIFACT.md`` describes the format.
"""
