use rule test as test_unselective_oracle with:
    wildcard_constraints:
        method=variants("unselective_oracle"),
    params:
        code=method_code("unselective_oracle"),
