use rule test as test_naive with:
    wildcard_constraints:
        method="naive",
    params:
        code=method_code("naive"),
