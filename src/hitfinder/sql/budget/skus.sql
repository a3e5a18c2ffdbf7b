-- budget_skus: what the budget has to know of each SKU beside its weeks.
-- Grain: sku_id.
-- Reads: skus, catalog, reports, budget_weeks.
with
sold as (
    select
        sku_id,
        sum(units) as units
    from reports
    where superseded_at is null
    group by sku_id
),

spent as (
    select
        sku_id,
        max(week) as first_week
    from budget_weeks
    where spend > 0
    group by sku_id
),

known as (
    select
        catalog.sku_id,
        catalog.category,
        catalog.title,
        catalog.launched_at,
        spent.first_week,
        -- No stock given is no ceiling; nor is one that was sold over: it is today's, and what is left is not known.
        case
            when skus.stock = 0 then 0
            when skus.stock >= coalesce(sold.units, 0) then skus.stock - coalesce(sold.units, 0)
        end as units_left
    from catalog
    inner join skus on catalog.sku_id = skus.sku_id
    left join sold on catalog.sku_id = sold.sku_id
    left join spent on catalog.sku_id = spent.sku_id
)

select * from known
